"""Who is shown pages: by the name that they ask for, so that no other site's script can read them through a name of its own."""

import ipaddress
import logging
import re
from collections.abc import Collection
from http import HTTPStatus
from typing import Final

from penstock.engine.clock import Clock
from penstock.engine.telemetry.events import Repeated
from penstock.engine.telemetry.http_request import Request
from penstock.engine.telemetry.http_server import Answer
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.pages")

_host: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{0,5})?")
loopback_names: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Callers:
    """From this machine: its own names and the named hosts. From elsewhere: the named hosts alone, none unless there are some.

    Each refusal is logged, and those that repeat are counted in one line. Thread-safe but for that count, which may be one off.
    """

    def __init__(self, hosts: Collection[str], *, clock: Clock) -> None:
        self._hosts = frozenset(each.lower() for each in hosts)
        self._clock = clock
        self._refusals = Repeated()

    def refusal(self, request: Request) -> Answer | None:
        """None where the caller may read."""
        follows_link = request.headers.get("sec-fetch-mode") == "navigate" and (
            request.headers.get("sec-fetch-dest") == "document"
        )
        if request.headers.get("sec-fetch-site", "none") in ("cross-site", "same-site") and not follows_link:
            return self._refused("another site's page asked for it")
        name = host_name(request.headers.get("host", ""))
        if name in self._hosts or (name in loopback_names and is_loopback(request.peer)):
            return None
        return self._refused("its Host header names none of http.hosts, nor this machine from itself")

    def _refused(self, why: str) -> Answer:
        if count := self._refusals.add(1, self._clock.monotonic_s()):
            logger.warning(
                "refused to show a page, %d times: %s", count, why, extra=LogCode.PAGE_REFUSED.extra
            )
        text = f"refused: {why}\nName the host that you ask for under http.hosts, behind a proxy that lets the right people in.\n"
        return Answer(
            body=text.encode(), content_type="text/plain; charset=utf-8", status=HTTPStatus.FORBIDDEN
        )


def host_name(header: str) -> str:
    """A Host header without its port, in lower case; empty for what is no name, or a name and no port."""
    found = _host.fullmatch(header)
    return (found[1] or found[2]).lower() if found else ""


def is_loopback(peer: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)
