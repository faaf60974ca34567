"""Asks the workers of a supervisor on their loopback ports, all at once and for a second at most."""

import http.client
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import orjson

workers_asked_at_once_max = 16
ask_timeout_s = 1.0
answer_bytes_max = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a worker answered."""

    status: int | None = None  # None: nobody answered
    body: bytes = b""
    timed_out: bool = False


def ask_workers(ports: Mapping[str, int], path_of: Callable[[str], str | None]) -> dict[str, Reply]:
    """Each worker's reply to a path of its own, within `ask_timeout_s`; a worker with the path None is not asked."""
    paths = {worker: path for worker in ports if (path := path_of(worker)) is not None}
    if not paths:
        return {}
    with ThreadPoolExecutor(max_workers=min(len(paths), workers_asked_at_once_max)) as pool:
        replies = pool.map(lambda worker: _ask(ports[worker], paths[worker]), paths)
        return dict(zip(paths, replies, strict=True))


def _ask(port: int, path: str) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ask_timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Reply(status=response.status, body=response.read(answer_bytes_max))
    except TimeoutError:
        return Reply(timed_out=True)
    except (OSError, http.client.HTTPException):
        return Reply()
    finally:
        connection.close()


def reason_of(reply: Reply) -> str:
    """Why a worker is not well, in words."""
    if reply.timed_out:
        return f"no answer within {ask_timeout_s:.0f} s"
    if reply.status is None:
        return "starting"
    try:
        return str(orjson.loads(reply.body)["reason"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"HTTP status {reply.status}"
