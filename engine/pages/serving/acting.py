"""What the pages may do: through the gate of the admin port where one is configured, else for this machine alone."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from penstock.engine.admin.audit_record import AuditFacts
from penstock.engine.admin.callers import Denial
from penstock.engine.admin.gate import Gate
from penstock.engine.admin.server import Reply
from penstock.engine.admin.server import Request as AdminRequest
from penstock.engine.clock import Clock
from penstock.engine.pages.sentences import sentence
from penstock.engine.pages.serving.callers import host_name, is_loopback, loopback_names
from penstock.engine.pages.serving.static_files import headers
from penstock.engine.pages.told_texts import as_told
from penstock.engine.pages.trying import Trying
from penstock.engine.telemetry.events import Repeated
from penstock.engine.telemetry.http_request import Request
from penstock.engine.telemetry.http_server import Answer
from penstock.schemas.errors import ConfigError, PenstockError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.pages")

proxied: Final = frozenset({"forwarded", "x-forwarded-for", "x-real-ip", "via"})
"""Headers of requests that somebody passed on: they come from wherever."""
acts: Final = frozenset({"trial", "replay", "replays"})
"""Of what the admin port can be asked for, what the pages ask."""


class Acting:
    """Answers what acts. Thread-safe but for the count of refusals, which may be one off.

    Promises: nothing acts for a request of another site's page, nor for one that is not JSON; where the settings have an admin
    section nothing acts without its gate, and where they have none nothing but a trial, for who sits at this machine.
    """

    def __init__(self, trying: Trying | None, *, guarded: bool, clock: Clock) -> None:
        """`guarded`: the settings have an admin section; `let_in` brings its gate."""
        self._trying = trying
        self._guarded = guarded
        self._gate: Gate | None = None
        self._clock = clock
        self._refusals = Repeated()

    def let_in(self, gate: Gate) -> None:
        """From now on those may act whom the gate lets in; the names that this port may be called by are http.hosts."""
        self._gate = replace(gate, hosts=frozenset())

    def was_refused(self, word: str, request: Request) -> None:
        """Record that somebody asked for `word` who may not even be shown pages."""
        if self._gate is not None:
            self._gate.trail.refused(
                AuditFacts(
                    event="refused",
                    action=word,
                    origin=request.peer,
                    code="forbidden",
                    reason=Denial.HOST if request.headers.get("sec-fetch-site") is None else Denial.ORIGIN,
                )
            )

    def offered(self, request: Request) -> Answer:
        """The schema's `acts`: what this caller can ask for, so that a page offers nothing that would be refused."""
        here = _at_this_machine(request)
        known = self._gate is None or not self._gate.anonymous
        if self._guarded:
            one = _offer("token") if known else _offer("open" if here else "refused", "act.not_here")
            return _json({"page": "acts", "trial": one, "replay": one}, HTTPStatus.OK)
        trial = _offer("open" if here and self._trying is not None else "refused", "act.not_here_no_admin")
        return _json(
            {"page": "acts", "trial": trial, "replay": _offer("refused", "act.no_admin")}, HTTPStatus.OK
        )

    def answer(self, word: str, request: Request) -> Answer:
        """What to answer to `word`, one of `acts`; that it may be shown pages is known of the caller already."""
        if not self._guarded:
            return self._on_this_machine(word, request)
        gate = self._gate
        if gate is None:
            return _told(HTTPStatus.SERVICE_UNAVAILABLE, "act.unavailable")
        if gate.anonymous and not _at_this_machine(
            request
        ):  # the admin port itself listens on loopback alone
            self.was_refused(word, request)
            return self._refused("nobody is known by a token here, and it comes from another machine")
        return _of(gate.answer(_for_the_gate(request)))

    def _on_this_machine(self, word: str, request: Request) -> Answer:
        if request.method == "POST" and (refused := self._refusal(request)) is not None:
            return refused
        if word != "trial":
            return _told(HTTPStatus.FORBIDDEN, "act.no_admin")
        if not _at_this_machine(request):
            return self._refused("the settings have no admin section, and it comes from another machine")
        if request.method != "POST":
            return _told(HTTPStatus.METHOD_NOT_ALLOWED, "act.method_not_allowed", allow="POST")
        if self._trying is None:
            return _told(HTTPStatus.NOT_FOUND, "act.not_found")
        try:
            body = orjson.loads(request.body)
            if not isinstance(body, dict):
                raise ConfigError("the body is not a JSON object")
            return _json(self._trying.act(self._trying.target(body)), HTTPStatus.OK)
        except orjson.JSONDecodeError:
            return _told(HTTPStatus.BAD_REQUEST, "act.bad_request", detail="the body is not JSON")
        except ConfigError as error:
            return _told(HTTPStatus.BAD_REQUEST, "act.bad_request", detail=str(error))
        except PenstockError as error:
            return _told(HTTPStatus.CONFLICT, "act.failed", detail=str(error))

    def _refusal(self, request: Request) -> Answer | None:
        """A browser lends its place on this machine to every page: only our own may act."""
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return self._refused("it is not JSON (Content-Type: application/json)")
        origins, host = request.every.get("origin", ()), request.every.get("host", ())
        if len(host) != 1 or any(_place_of(each) != host[0].lower() for each in origins):
            return self._refused("another site's page asked for it")
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return self._refused("another site's page asked for it")
        return None

    def _refused(self, why: str) -> Answer:
        if count := self._refusals.add(1, self._clock.monotonic_s()):
            logger.warning("refused to act, %d times: %s", count, why, extra=LogCode.PAGE_REFUSED.extra)
        return _told(HTTPStatus.FORBIDDEN, "act.refused", reason=why)


def _offer(way: str, refusal: str = "") -> dict[str, Any]:
    return {"offered": way, "reason": sentence(refusal) if way == "refused" else None}


def _at_this_machine(request: Request) -> bool:
    """From here, and by a name that only here means this machine: what a proxy passes on has another."""
    named = host_name(request.headers.get("host", "")) in loopback_names
    return named and is_loopback(request.peer) and proxied.isdisjoint(request.headers)


def _place_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _for_the_gate(request: Request) -> AdminRequest:
    return AdminRequest(
        method=request.method,
        path=request.path,
        headers=request.every,
        body=request.body,
        origin=request.peer,
    )


def _of(reply: Reply) -> Answer:
    if "error" not in reply.body:
        return _json(_said(reply.body), reply.status, reply.headers)
    code = str(reply.body["error"])
    return _told(
        reply.status, f"act.{code}", headers_too=reply.headers, detail=str(reply.body.get("detail", ""))
    )


def _said(body: Mapping[str, Any]) -> dict[str, Any]:
    """With each fault of a replay as a sentence beside its text."""
    found = dict(body)
    if isinstance(body.get("replays"), list):
        found["replays"] = [_said(each) for each in body["replays"]]
    if isinstance(body.get("fault"), str):
        found["said"] = as_told(body["fault"]) if body["fault"] else None
    return found


def _told(
    status: HTTPStatus,
    code: str,
    *,
    allow: str | None = None,
    headers_too: Mapping[str, str] | None = None,
    **values: str,
) -> Answer:
    more = {**(headers_too or {}), **({} if allow is None else {"Allow": allow})}
    return _json({"error": sentence(code, **values)}, status, more)


def _json(body: Mapping[str, Any], status: HTTPStatus, more: Mapping[str, str] | None = None) -> Answer:
    return Answer(
        body=orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS) + b"\n",
        status=status,
        headers={**headers, **(more or {})},
    )
