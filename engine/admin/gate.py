"""From a request to an action: who asks, whether they may, the record of it, and only then the deed."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import orjson

from penstock.engine.admin.audit_record import AuditFacts, Event
from penstock.engine.admin.callers import Caller, Denial, DeniedError, KeysAwayError, Role
from penstock.engine.admin.server import Reply, Request, error_reply
from penstock.engine.clock import Clock
from penstock.schemas.errors import ConfigError, PenstockError

logger = logging.getLogger("penstock.admin")

prefix: Final = "/api/v1/"
authorization_characters_max: Final = 8192
loopback_names: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """Something that can be asked for.

    `target` reads the request's body, a JSON object, and raises ConfigError for what is not asked for rightly; `act` does it and
    answers, and may raise PenstockError. `changes` False: it only looks, and is not recorded. `recorded`: what of its target may
    be recorded. `alone` False: it changes nothing, so that it takes no turns with the others.
    """

    role: Role
    target: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    act: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    changes: bool = True
    recorded: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    alone: bool = True


Ended = Callable[[bool, Mapping[str, Any]], None]
"""Told once what became of something that went on after the answer: whether it was done, and what to record of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LongAction:
    """Something that takes longer than a request may: `begin` starts it and answers at once; may raise PenstockError."""

    role: Role
    target: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    begin: Callable[[Mapping[str, Any], Ended], Mapping[str, Any]]


class Tokens(Protocol):
    """A way to show who one is."""

    def caller(self, token: str) -> Caller | None:
        """Whose token it is; None: not one of these. Raises DeniedError, KeysAwayError."""


class Trail(Protocol):
    """The audit."""

    def refused(self, facts: AuditFacts) -> None:
        """Record it, or count it; never waits."""

    def before_acting(self, facts: AuditFacts) -> bool:
        """Whether the record is stored; waits a few seconds for it at most."""

    def after_acting(self, facts: AuditFacts) -> None:
        """Record it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """Answers requests. Thread-safe.

    Promises: who is not let in learns nothing but that, with one code; nothing is done whose record is not stored first; whatever is
    refused, and to whomever, is a record.
    """

    actions: Mapping[str, Action | LongAction]
    tokens: tuple[Tokens, ...]
    certificates: Mapping[str, Role]
    anonymous: bool
    """Whoever reaches the port may do everything: only ever on the loopback interface."""
    hosts: frozenset[str]
    """Names that the port may be called by; empty: any."""
    use_once: Callable[[Caller, float], bool]
    trail: Trail
    clock: Clock
    lock: threading.Lock
    """One action at a time."""

    def answer(self, request: Request) -> Reply:
        """What to answer; never raises."""
        asked = request.path.removeprefix(prefix)
        facts = AuditFacts(
            event="refused", action=asked if asked in self.actions else "other", origin=request.origin
        )
        try:
            self._require_site(request)
            caller = self._caller(request)
        except DeniedError as error:
            self.trail.refused(replace(facts, code="unauthorized", reason=error.denial))
            return replace(
                error_reply(HTTPStatus.UNAUTHORIZED, "unauthorized"),
                headers={"WWW-Authenticate": 'Bearer realm="penstock"'},
            )
        except KeysAwayError:
            self.trail.refused(
                replace(facts, code="unavailable", reason="the identity provider's keys cannot be had")
            )
            return error_reply(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable")
        facts = replace(
            facts, who=caller.name, way=caller.way, role=caller.role.word if caller.role is not None else ""
        )
        action = self.actions.get(asked) if request.path.startswith(prefix) else None
        if action is None:
            known = ", ".join(prefix + each for each in sorted(self.actions))
            self.trail.refused(replace(facts, code="not_found"))
            return error_reply(HTTPStatus.NOT_FOUND, "not_found", f"there are {known}")
        if caller.role is None or caller.role < action.role:
            self.trail.refused(replace(facts, code="forbidden", reason=Denial.ROLE))
            return error_reply(HTTPStatus.FORBIDDEN, "forbidden")
        looks = isinstance(action, Action) and not action.changes
        method = "GET" if looks else "POST"
        if request.method != method:
            self.trail.refused(replace(facts, code="method_not_allowed"))
            reply = error_reply(
                HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", f"{request.path} takes {method}"
            )
            return replace(reply, headers={"Allow": method})
        try:
            target = action.target({} if looks else _body(request))
        except ConfigError as error:  # its text may tell what was asked for, and is for the caller alone
            self.trail.refused(replace(facts, code="bad_request"))
            return error_reply(HTTPStatus.BAD_REQUEST, "bad_request", str(error))
        recorded = action.recorded(target) if isinstance(action, Action) else target
        return self._act(action, target, caller, replace(facts, target=recorded))

    def refused(self, origin: str, status: HTTPStatus) -> Reply:
        """What to answer to something that is no request: a head that is too long may have held a token of any length."""
        bad = status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        code, reason = ("bad_request", "not HTTP") if bad else ("unauthorized", Denial.TOO_LONG)
        if status is HTTPStatus.UNAUTHORIZED:
            reason = Denial.CERTIFICATE
        self.trail.refused(
            AuditFacts(event="refused", action="other", origin=origin, code=code, reason=reason)
        )
        return error_reply(HTTPStatus.BAD_REQUEST if bad else HTTPStatus.UNAUTHORIZED, code)

    def _act(
        self, action: Action | LongAction, target: Mapping[str, Any], caller: Caller, facts: AuditFacts
    ) -> Reply:
        if isinstance(action, Action) and not action.changes:
            return Reply(status=HTTPStatus.OK, body=action.act(target))
        if not self.lock.acquire(timeout=1.0):
            self.trail.refused(replace(facts, code="busy"))
            return error_reply(HTTPStatus.CONFLICT, "busy", "another action is being done; try again")
        holding = True
        try:
            if not self.use_once(caller, self.clock.wall_ms() / 1000):
                self.trail.refused(replace(facts, code="unauthorized", reason=Denial.REPLAYED))
                return error_reply(HTTPStatus.UNAUTHORIZED, "unauthorized")
            if isinstance(action, Action) and not action.alone:
                holding = False
                self.lock.release()
            if not self.trail.before_acting(replace(facts, event="allowed")):
                self.trail.after_acting(replace(facts, event="failed", code="audit_unavailable"))
                return error_reply(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "audit_unavailable",
                    "the audit topic takes no record now, so nothing was done",
                )
            if isinstance(action, Action):
                return self._act_now(action, target, facts)
            return self._begin(action, facts)
        finally:
            if holding:
                self.lock.release()

    def _act_now(self, action: Action, target: Mapping[str, Any], facts: AuditFacts) -> Reply:
        done = False
        try:
            body = action.act(target)
            done = True
        except PenstockError as error:
            return error_reply(HTTPStatus.CONFLICT, "failed", str(error))
        finally:
            self.trail.after_acting(replace(facts, event="done" if done else "failed"))
        return Reply(status=HTTPStatus.OK, body=body)

    def _begin(self, action: LongAction, facts: AuditFacts) -> Reply:
        """Its outcome is recorded when it is over."""

        def ended(done: bool, outcome: Mapping[str, Any]) -> None:
            event: Event = "done" if done else "failed"
            self.trail.after_acting(replace(facts, event=event, target={**facts.target, **outcome}))

        begun = False
        try:
            body = action.begin(facts.target, ended)
            begun = True
        except PenstockError as error:
            return error_reply(HTTPStatus.CONFLICT, "failed", str(error))
        finally:
            if not begun:
                self.trail.after_acting(replace(facts, event="failed"))
        return Reply(status=HTTPStatus.ACCEPTED, body=body)

    def _require_site(self, request: Request) -> None:
        """Browsers lend their place on this machine, and their certificate, to every page: only our own may ask. Raises DeniedError."""
        host = request.header("host")
        name = _host_name(host or "")
        if host is None or not name or (self.hosts and name not in self.hosts):
            raise DeniedError(Denial.HOST)
        origin = request.headers.get("origin", ())
        if any(urlsplit_or_none(each) != host.lower() for each in origin):
            raise DeniedError(Denial.ORIGIN)
        if request.header("sec-fetch-site") not in (None, "same-origin", "none"):
            raise DeniedError(Denial.ORIGIN)

    def _caller(self, request: Request) -> Caller:
        """Who asks. Raises DeniedError, KeysAwayError."""
        given = request.headers.get("authorization", ())
        if given:
            return self._bearer(request.header("authorization") or "")
        if request.certificate_name is not None:
            role = self.certificates.get(request.certificate_name)
            if role is None:
                raise DeniedError(Denial.CERTIFICATE)
            return Caller(name=request.certificate_name, way="certificate", role=role)
        if self.anonymous:
            return Caller(name="anyone on this machine", way="loopback", role=Role.ADMIN)
        raise DeniedError(Denial.NO_TOKEN)

    def _bearer(self, authorization: str) -> Caller:
        if len(authorization) > authorization_characters_max + len("Bearer "):
            raise DeniedError(Denial.TOO_LONG)
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise DeniedError(Denial.NOT_A_TOKEN)
        for each in self.tokens:
            caller = each.caller(token)
            if caller is not None:
                return caller
        raise DeniedError(Denial.UNKNOWN_TOKEN)


def _body(request: Request) -> Mapping[str, Any]:
    """The body's JSON object. Raises ConfigError."""
    kind = (request.header("content-type") or "").split(";")[0].strip().lower()
    if kind != "application/json":  # a page of another site may send forms, and not this
        raise ConfigError("the body has to be JSON: Content-Type: application/json")
    try:
        body = orjson.loads(request.body or b"{}")
    except orjson.JSONDecodeError as error:
        raise ConfigError("the body is not JSON") from error
    if not isinstance(body, dict):
        raise ConfigError("the body is not a JSON object")
    return body


def _host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    name = host.rsplit("]", 1)[0] + "]" if host.startswith("[") else host.rsplit(":", 1)[0]
    return name.strip("[]").lower()


def urlsplit_or_none(origin: str) -> str | None:
    """Host and port of an Origin; None for none that has any."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
