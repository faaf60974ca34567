"""HTTP exchanges with a schema registry: each is over at its deadline, whatever the resolver or the network does."""

import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import orjson

from penstock.schemas.errors import ConfigError, InvariantError, UnavailableError

body_bytes_max: Final = 1 << 20
calls_max: Final = 4
"""Calls under way at once, given-up ones included: a registry that hangs holds this many threads and no more."""
attempts_max: Final = 4
retry_first_s: Final = 0.2

_retried = frozenset({408, 425, 429, 500, 502, 503, 504})
_content_type = "application/vnd.schemaregistry.v1+json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistryConfig:
    """Where the registry is and who asks. TLS is always verified, against `ca_file` or the system's authorities."""

    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    timeout_s: float = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    status: int
    body: Any

    @property
    def error_code(self) -> int | None:
        code = self.body.get("error_code") if isinstance(self.body, dict) else None
        return code if isinstance(code, int) else None

    def member(self, name: str, kind: type) -> Any:
        value = self.body.get(name) if isinstance(self.body, dict) else None
        if type(value) is not kind:
            raise UnavailableError(f"the schema registry's answer has no {name}")
        return value


class Exchange:
    """Calls to the registry, each on a thread of its own, which is given up at the deadline; `calls_max` at once."""

    def __init__(
        self, config: RegistryConfig, *, monotonic_s: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        """Raises ConfigError: no address, or no certificates in `ca_file`."""
        self._config = config
        self._monotonic_s = monotonic_s
        self._sleep = sleep
        self._url = config.url.rstrip("/")
        self._slots = threading.BoundedSemaphore(calls_max)
        self._client = _client(config)

    def close(self) -> None:
        """Release the connections. Idempotent."""
        self._client.close()

    def repeated(self, method: str, place: str, body: Mapping[str, Any] | None = None) -> Answer:
        for attempt in range(attempts_max):
            if attempt:
                self._sleep(retry_first_s * 2 ** (attempt - 1))
            try:
                answer = self.call(method, place, body)
            except UnavailableError:
                if attempt == attempts_max - 1:
                    raise
                continue
            if answer.status not in _retried:
                return answer
        raise UnavailableError(f"the schema registry keeps answering {answer.status}")

    def call(self, method: str, place: str, body: Mapping[str, Any] | None = None) -> Answer:
        """One exchange, over after timeout_s. Raises UnavailableError."""
        if not self._slots.acquire(blocking=False):
            raise UnavailableError("the schema registry has not answered the last calls")
        outcome: list[Answer | UnavailableError] = []
        done = threading.Event()

        def exchange() -> None:
            try:
                outcome.append(self._exchange(method, place, body))
            except UnavailableError as error:
                outcome.append(error)
            finally:
                self._slots.release()
                done.set()

        threading.Thread(target=exchange, name="registry", daemon=True).start()
        if not done.wait(self._config.timeout_s):
            raise UnavailableError(f"the schema registry did not answer within {self._config.timeout_s:g} s")
        if not outcome:
            raise InvariantError("a call to the schema registry ended without an outcome")
        if isinstance(outcome[0], UnavailableError):
            raise UnavailableError(str(outcome[0])) from outcome[0]
        return outcome[0]

    def _exchange(self, method: str, place: str, body: Mapping[str, Any] | None) -> Answer:
        content = None if body is None else orjson.dumps(body)
        deadline_s = self._monotonic_s() + self._config.timeout_s
        try:
            with self._client.stream(method, self._url + place, content=content) as response:
                if response.is_redirect:
                    raise UnavailableError(
                        "the schema registry answered with a redirect, which is not followed"
                    )
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise UnavailableError(
                        "the schema registry answered in an encoding that was not asked for"
                    )
                taken = bytearray()
                for part in response.iter_raw():
                    taken += part
                    if len(taken) > body_bytes_max:
                        raise UnavailableError(
                            f"the schema registry's answer is longer than {body_bytes_max} bytes"
                        )
                    if self._monotonic_s() > deadline_s:
                        raise UnavailableError("the schema registry's answer trickles")
        except httpx.HTTPError as error:
            raise UnavailableError(f"the schema registry cannot be asked: {_why(error)}") from error
        try:
            return Answer(status=response.status_code, body=orjson.loads(taken))
        except orjson.JSONDecodeError as error:
            if response.status_code >= 400:
                return Answer(status=response.status_code, body=None)
            raise UnavailableError("the schema registry's answer is not JSON") from error


def _client(config: RegistryConfig) -> httpx.Client:
    verify: ssl.SSLContext | bool = True
    if config.url.startswith("https:"):
        try:
            verify = ssl.create_default_context(cafile=config.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"registry.ca_file {config.ca_file} holds no certificates: {error}") from error
    auth = None if config.username is None else httpx.BasicAuth(config.username, config.password or "")
    headers = {
        "Accept": f"{_content_type}, application/json",
        "Accept-Encoding": "identity",
        "Content-Type": _content_type,
    }
    try:
        client = httpx.Client(
            auth=auth,
            verify=verify,
            timeout=config.timeout_s,
            headers=headers,
            follow_redirects=False,
            trust_env=False,  # neither proxies nor credentials from the environment or ~/.netrc
            limits=httpx.Limits(max_connections=calls_max, max_keepalive_connections=1),
        )
        client.build_request("GET", config.url)
        if httpx.URL(config.url).userinfo:
            raise ConfigError(
                "registry.url may not hold a name and a password; use registry.username and password"
            )
    except (httpx.InvalidURL, ValueError):  # their texts quote the address
        raise ConfigError("registry.url is not an address") from None
    return client


def _why(error: httpx.HTTPError) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
