"""Schema Registry (Confluent's HTTP interface): schemas by id, and our own contracts registered.

Calls are made at start and on the compute thread, never on the polling thread. Each is over after `timeout_s`, whatever the
registry, the resolver or the network does: it runs on a thread of its own, which is given up at the deadline.
"""

import ssl
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson

from penstock.connectors.registry.references import Named, inline_references
from penstock.schemas.errors import (
    AccessRefusedError,
    ConfigError,
    InvariantError,
    RecordError,
    UnavailableError,
)
from penstock.schemas.reasons import Reason, Stage

body_bytes_max: Final = 1 << 20
calls_max: Final = 4
"""Calls under way at once, given-up ones included: a registry that hangs holds this many threads and no more."""
first_wait_s: Final = 0.5
"""What the compute thread waits for an id it asks for the first time; other records wait as long."""
again_wait_s: Final = 0.1
attempts_max: Final = 4
retry_first_s: Final = 0.2
references_max: Final = 32
references_depth_max: Final = 8
schemas_kept_max: Final = 256
unknown_kept_max: Final = 10_000
unknown_kept_s: Final = 60.0
unknown_burst_max: Final = 10.0
unknown_per_s: Final = 1.0

_schema_not_found, _subject_not_found, _version_not_found = 40403, 40401, 40402
_config_not_found = 40408
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
class RegisteredSchema:
    """A version of a subject."""

    schema_id: int
    version: int
    schema: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
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


class _Lookup:
    """A question that runs on a thread of its own until it has an outcome."""

    def __init__(self, fetch: Callable[[], Any], *, began_s: float) -> None:
        self.began_s = began_s
        self.ended = threading.Event()
        self._schema: Any = None
        self._error: RecordError | UnavailableError | None = None
        threading.Thread(target=self._run, args=(fetch,), name="registry-lookup", daemon=True).start()

    def _run(self, fetch: Callable[[], Any]) -> None:
        try:
            self._schema = fetch()
        except (RecordError, UnavailableError) as error:
            self._error = error
        finally:
            self.ended.set()

    def result(self) -> Any:
        """The schema. Raises what the question ended in."""
        if self._error is not None:
            raise self._error
        if self._schema is None:
            raise InvariantError("a question to the schema registry ended without an outcome")
        return self._schema


class Registry:
    """A client with a cache, for one thread at a time.

    A schema, once known, is kept (ids never change their meaning). An id the registry does not know is remembered for a minute,
    and such ids are asked for about once a second at most: a flood of invented ids costs the registry nothing and ends in
    the dead letters. Ids that turn out to be known do not count against that.
    """

    def __init__(
        self,
        config: RegistryConfig,
        *,
        monotonic_s: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._config = config
        self._monotonic_s = monotonic_s
        self._sleep = sleep
        self._url = config.url.rstrip("/")
        self._slots = threading.BoundedSemaphore(calls_max)
        self._known: OrderedDict[int, Any] = OrderedDict()
        self._unknown: OrderedDict[int, float] = OrderedDict()
        self._lookups: dict[int, _Lookup] = {}
        self._failing: OrderedDict[int, None] = OrderedDict()  # ids whose last question had no answer
        self._tokens = unknown_burst_max
        self._tokens_at_s = monotonic_s()
        self._client = _client(config)

    def schema(self, schema_id: int) -> Any:
        """The Avro schema with this id, references resolved: what `json.loads` makes of it.

        Waits at most `first_wait_s`, after a failure `again_wait_s`: the question goes on by itself, and the caller,
        which asks again, finds its answer. Raises RecordError: the registry does not know the id
        (UNKNOWN_SCHEMA), or it is no Avro schema that stands for itself (INCOMPATIBLE_SCHEMA); UnavailableError: no
        answer that could be believed, so the record may well be good; AccessRefusedError, one of these: we are refused.
        """
        if schema_id in self._known:
            self._known.move_to_end(schema_id)
            return self._known[schema_id]
        lookup = self._lookups.get(schema_id)
        if lookup is None:
            self._refuse_if_unknown(schema_id)
            lookup = self._look_up(schema_id)
        if not lookup.ended.is_set():
            asked_s = self._monotonic_s() - lookup.began_s
            raise UnavailableError(
                f"the schema registry has not answered yet when asked for schema id {schema_id} ({asked_s:.1f} s)"
            )
        del self._lookups[schema_id]
        try:
            schema = lookup.result()
        except RecordError as error:
            self._failing.pop(schema_id, None)
            if error.reason is Reason.UNKNOWN_SCHEMA:
                self._remember_unknown(schema_id)
            raise
        except UnavailableError:
            self._failing[schema_id] = None
            if len(self._failing) > schemas_kept_max:
                self._failing.popitem(last=False)
            raise
        self._failing.pop(schema_id, None)
        self._known[schema_id] = schema
        if len(self._known) > schemas_kept_max:
            self._known.popitem(last=False)
        return schema

    def ensure(self, subject: str, schema: Mapping[str, Any]) -> int:
        """The id of `schema` under `subject`, registered with BACKWARD compatibility when it is not there yet.

        A compatibility level that the subject already has is left alone. Repeats with back-off for a few seconds. Raises
        ConfigError (not compatible, not allowed, no Avro) or UnavailableError.
        """
        place = f"/subjects/{quote(subject, safe='')}"
        body = {"schema": orjson.dumps(schema).decode(), "schemaType": "AVRO"}
        answer = self._repeated("POST", place, body)
        if answer.status == 404 and answer.error_code in (_subject_not_found, _schema_not_found):
            self._ensure_backward(subject)
            answer = self._repeated("POST", f"{place}/versions", body)
        if answer.status == 409:
            raise ConfigError(
                f"this version's contract is not compatible with what is registered under {subject}"
            )
        if answer.status != 200:
            raise _refused(answer, f"register {subject}")
        schema_id: int = answer.member("id", int)
        return schema_id

    def latest(self, subject: str) -> RegisteredSchema | None:
        """The newest version under `subject`, None when there is none. Repeats with back-off.

        Raises ConfigError, RecordError (references that do not resolve) or UnavailableError.
        """
        answer = self._repeated("GET", f"/subjects/{quote(subject, safe='')}/versions/latest")
        if answer.status == 404 and answer.error_code in (_subject_not_found, _version_not_found):
            return None
        if answer.status != 200:
            raise _refused(answer, f"read {subject}")
        return RegisteredSchema(
            schema_id=answer.member("id", int),
            version=answer.member("version", int),
            schema=self._whole(answer, f"the newest schema of {subject}"),
        )

    def close(self) -> None:
        """Release the connections. Idempotent."""
        self._client.close()

    def _look_up(self, schema_id: int) -> "_Lookup":
        if len(self._lookups) >= calls_max:
            for other in [number for number, lookup in self._lookups.items() if lookup.ended.is_set()]:
                del self._lookups[other]  # nobody has come back for it
        if len(self._lookups) >= calls_max:
            raise UnavailableError("the schema registry has not answered the last calls")
        lookup = _Lookup(lambda: self._fetch(schema_id), began_s=self._monotonic_s())
        self._lookups[schema_id] = lookup
        patience_s = again_wait_s if schema_id in self._failing else first_wait_s
        lookup.ended.wait(min(patience_s, self._config.timeout_s))
        return lookup

    def _fetch(self, schema_id: int) -> Any:
        answer = self._call("GET", f"/schemas/ids/{schema_id}")
        if answer.status == 404 and answer.error_code == _schema_not_found:
            raise _record_error(
                Reason.UNKNOWN_SCHEMA, f"the schema registry does not know schema id {schema_id}"
            )
        if answer.status != 200:
            raise _unanswered(answer, f"schema id {schema_id}")
        return self._whole(answer, f"schema id {schema_id}")

    def _ensure_backward(self, subject: str) -> None:
        place = f"/config/{quote(subject, safe='')}"
        answer = self._repeated("GET", place)
        if answer.status == 404 and answer.error_code in (_config_not_found, _subject_not_found):
            answer = self._repeated("PUT", place, {"compatibility": "BACKWARD"})
        if answer.status != 200:
            raise _refused(answer, f"set the compatibility of {subject}")

    def _refuse_if_unknown(self, schema_id: int) -> None:
        now_s = self._monotonic_s()
        asked_s = self._unknown.get(schema_id)
        if asked_s is not None and now_s - asked_s < unknown_kept_s:
            raise _record_error(
                Reason.UNKNOWN_SCHEMA, f"the schema registry does not know schema id {schema_id}"
            )
        self._tokens = min(unknown_burst_max, self._tokens + (now_s - self._tokens_at_s) * unknown_per_s)
        self._tokens_at_s = now_s
        if self._tokens < 1.0:
            detail = f"schema id {schema_id} was not looked up: too many unknown ids arrive"
            raise _record_error(Reason.UNKNOWN_SCHEMA, detail)

    def _remember_unknown(self, schema_id: int) -> None:
        self._tokens -= 1.0
        self._unknown[schema_id] = self._monotonic_s()
        self._unknown.move_to_end(schema_id)
        if len(self._unknown) > unknown_kept_max:
            self._unknown.popitem(last=False)

    def _whole(self, answer: _Answer, what: str) -> Any:
        """The schema in an answer, with everything it refers to inside it."""
        schema = _parsed(answer, what)
        named: dict[str, Named] = {}
        self._gather(answer, what, named, depth=0)
        try:
            return inline_references(schema, named)
        except ValueError as error:
            raise _record_error(Reason.INCOMPATIBLE_SCHEMA, f"{what} {error}") from error

    def _gather(self, answer: _Answer, what: str, named: dict[str, Named], *, depth: int) -> None:
        references = answer.body.get("references") or []
        if depth > references_depth_max or not isinstance(references, list):
            raise _record_error(Reason.INCOMPATIBLE_SCHEMA, f"{what} has references that do not end")
        for reference in references:
            try:
                name, subject, version = (
                    str(reference["name"]),
                    str(reference["subject"]),
                    int(reference["version"]),
                )
            except (KeyError, TypeError, ValueError) as error:
                raise UnavailableError("the schema registry's answer has a broken reference") from error
            if name in named:
                continue
            if len(named) == references_max:
                raise _record_error(
                    Reason.INCOMPATIBLE_SCHEMA, f"{what} has more than {references_max} references"
                )
            found = self._call("GET", f"/subjects/{quote(subject, safe='')}/versions/{version}")
            if found.status != 200:
                raise _unanswered(found, f"version {version} of {subject}")
            named[name] = _parsed(found, f"version {version} of {subject}")
            self._gather(found, what, named, depth=depth + 1)

    def _repeated(self, method: str, place: str, body: Mapping[str, Any] | None = None) -> _Answer:
        for attempt in range(attempts_max):
            if attempt:
                self._sleep(retry_first_s * 2 ** (attempt - 1))
            try:
                answer = self._call(method, place, body)
            except UnavailableError:
                if attempt == attempts_max - 1:
                    raise
                continue
            if answer.status not in _retried:
                return answer
        raise UnavailableError(f"the schema registry keeps answering {answer.status}")

    def _call(self, method: str, place: str, body: Mapping[str, Any] | None = None) -> _Answer:
        """One exchange, over after timeout_s. Raises UnavailableError."""
        if not self._slots.acquire(blocking=False):
            raise UnavailableError("the schema registry has not answered the last calls")
        outcome: list[_Answer | UnavailableError] = []
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

    def _exchange(self, method: str, place: str, body: Mapping[str, Any] | None) -> _Answer:
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
            return _Answer(status=response.status_code, body=orjson.loads(taken))
        except orjson.JSONDecodeError as error:
            if response.status_code >= 400:
                return _Answer(status=response.status_code, body=None)
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


def _parsed(answer: _Answer, what: str) -> Any:
    kind = answer.body.get("schemaType", "AVRO") if isinstance(answer.body, dict) else None
    text = answer.member("schema", str)
    if kind != "AVRO":
        raise _record_error(Reason.INCOMPATIBLE_SCHEMA, f"{what} is not an Avro schema")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _record_error(Reason.INCOMPATIBLE_SCHEMA, f"{what} is not JSON") from error


def _refused(answer: _Answer, what: str) -> ConfigError | UnavailableError:
    if answer.status in (401, 403):
        return ConfigError(f"the schema registry does not let this user {what} ({answer.status})")
    if 400 <= answer.status < 500:
        return ConfigError(f"the schema registry refuses to {what} ({answer.status}, {answer.error_code})")
    return UnavailableError(f"the schema registry answered {answer.status} when asked to {what}")


def _unanswered(answer: _Answer, what: str) -> UnavailableError:
    """Why an answer is none. A 404 that is not in the registry's own words is another server's, or a wrong path."""
    said = f"the schema registry answered {answer.status} when asked for {what}"
    if answer.status in (401, 403):
        return AccessRefusedError(f"{said}: it does not let this user read schemas (registry.username)")
    if answer.status == 404:
        return AccessRefusedError(f"{said}, not in a registry's words: is registry.url the address of one?")
    return UnavailableError(said)


def _record_error(reason: Reason, detail: str) -> RecordError:
    return RecordError(stage=Stage.DECODE, reason=reason, detail=detail)


def _why(error: httpx.HTTPError) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
