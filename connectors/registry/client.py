"""Schema Registry (Confluent's HTTP interface): schemas by id, and our own contracts registered.

Calls are made at start and on the compute thread, never on the polling thread. Each is over after `timeout_s`, whatever the
registry, the resolver or the network does: it runs on a thread of its own, which is given up at the deadline.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from penstock.connectors.registry.exchange import Answer, Exchange, RegistryConfig, calls_max
from penstock.connectors.registry.references import Named, inline_references
from penstock.schemas.errors import (
    AccessRefusedError,
    ConfigError,
    InvariantError,
    RecordError,
    UnavailableError,
)
from penstock.schemas.reasons import Reason, Stage

first_wait_s: Final = 0.5
"""What the compute thread waits for an id it asks for the first time; other records wait as long."""
again_wait_s: Final = 0.1
references_max: Final = 32
references_depth_max: Final = 8
schemas_kept_max: Final = 256
unknown_kept_max: Final = 10_000
unknown_first_s: Final = 5.0
unknown_kept_s: Final = 60.0
"""An id that the registry did not know is not asked for again for so long; after the first time it is asked sooner."""
unsure_waits_s: Final = (0.1, 0.3)
"""Together less than `first_wait_s`. A registry of several nodes may answer from one that has not heard of a new schema yet, so
an unknown id is asked for again after so long, where that has not been done often lately."""
unsure_max: Final = 3
unsure_window_s: Final = 60.0
unknown_burst_max: Final = 10.0
unknown_per_s: Final = 1.0

_schema_not_found, _subject_not_found, _version_not_found = 40403, 40401, 40402
_config_not_found = 40408


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredSchema:
    """A version of a subject."""

    schema_id: int
    version: int
    schema: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unknown:
    until_s: float
    detail: str


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

    A schema, once known, is kept (ids never change their meaning). An id the registry does not know, asked a few times within
    half a second, is remembered for some seconds, then for a minute, and such ids are asked for about once a second at most: a flood of invented ids costs the registry nothing and ends in
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
        self._known: OrderedDict[int, Any] = OrderedDict()
        self._unknown: OrderedDict[int, _Unknown] = OrderedDict()
        self._unsure_at_s: deque[float] = deque(maxlen=unsure_max)
        self._lookups: dict[int, _Lookup] = {}
        self._failing: OrderedDict[int, None] = OrderedDict()  # ids whose last question had no answer
        self._tokens = unknown_burst_max
        self._tokens_at_s = monotonic_s()
        self._sleep = sleep
        self._exchange = Exchange(config, monotonic_s=monotonic_s, sleep=sleep)

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
                self._remember_unknown(schema_id, error.detail)
            raise
        except UnavailableError:
            self._failing[schema_id] = None
            if len(self._failing) > schemas_kept_max:
                self._failing.popitem(last=False)
            raise
        self._failing.pop(schema_id, None)
        self._unknown.pop(schema_id, None)
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
        answer = self._exchange.repeated("POST", place, body)
        if answer.status == 404 and answer.error_code in (_subject_not_found, _schema_not_found):
            self._ensure_backward(subject)
            answer = self._exchange.repeated("POST", f"{place}/versions", body)
        if answer.status == 409:
            raise _incompatible(subject)
        if answer.status != 200:
            raise _refused(answer, f"register {subject}")
        schema_id: int = answer.member("id", int)
        return schema_id

    def has(self, subject: str, schema: Mapping[str, Any]) -> bool:
        """Whether `schema` is registered under `subject`; if not, `ensure` would be let do it as far as the registry tells.

        Changes nothing. Repeats with back-off. Raises ConfigError (not compatible, not allowed, no Avro) or UnavailableError.
        """
        named = quote(subject, safe="")
        body = {"schema": orjson.dumps(schema).decode(), "schemaType": "AVRO"}
        answer = self._exchange.repeated("POST", f"/subjects/{named}", body)
        if answer.status == 200:
            return True
        if answer.status != 404 or answer.error_code not in (_subject_not_found, _schema_not_found):
            raise _refused(answer, f"look up {subject}")
        place = f"/compatibility/subjects/{named}/versions/latest"
        answer = self._exchange.repeated("POST", place, body)
        if answer.status == 404 and answer.error_code in (_subject_not_found, _version_not_found):
            return False
        if answer.status != 200:
            raise _refused(answer, f"compare with {subject}")
        if not answer.member("is_compatible", bool):
            raise _incompatible(subject)
        return False

    def latest(self, subject: str) -> RegisteredSchema | None:
        """The newest version under `subject`, None when there is none. Repeats with back-off.

        Raises ConfigError, RecordError (references that do not resolve) or UnavailableError.
        """
        answer = self._exchange.repeated("GET", f"/subjects/{quote(subject, safe='')}/versions/latest")
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
        self._exchange.close()

    def _look_up(self, schema_id: int) -> "_Lookup":
        if len(self._lookups) >= calls_max:
            for other in [number for number, lookup in self._lookups.items() if lookup.ended.is_set()]:
                del self._lookups[other]  # nobody has come back for it
        if len(self._lookups) >= calls_max:
            raise UnavailableError("the schema registry has not answered the last calls")
        waits_s = self._unsure_waits_s(schema_id)
        lookup = _Lookup(lambda: self._fetch(schema_id, waits_s), began_s=self._monotonic_s())
        self._lookups[schema_id] = lookup
        patience_s = again_wait_s if schema_id in self._failing else first_wait_s
        lookup.ended.wait(min(patience_s, self._config.timeout_s))
        return lookup

    def _unsure_waits_s(self, schema_id: int) -> tuple[float, ...]:
        """Between questions for an id that is not known at once; none where the last ones were invented ids."""
        now_s = self._monotonic_s()
        often = len(self._unsure_at_s) == unsure_max and now_s - self._unsure_at_s[0] < unsure_window_s
        return () if often or schema_id in self._unknown else unsure_waits_s

    def _fetch(self, schema_id: int, waits_s: Sequence[float]) -> Any:
        answer = self._exchange.call("GET", f"/schemas/ids/{schema_id}")
        for wait_s in waits_s:
            if answer.status != 404 or answer.error_code != _schema_not_found:
                break
            self._sleep(wait_s)
            answer = self._exchange.call("GET", f"/schemas/ids/{schema_id}")
        if answer.status == 404 and answer.error_code == _schema_not_found:
            raise _record_error(
                Reason.UNKNOWN_SCHEMA, f"the schema registry does not know schema id {schema_id}"
            )
        if answer.status != 200:
            raise _unanswered(answer, f"schema id {schema_id}")
        return self._whole(answer, f"schema id {schema_id}")

    def _ensure_backward(self, subject: str) -> None:
        place = f"/config/{quote(subject, safe='')}"
        answer = self._exchange.repeated("GET", place)
        if answer.status == 404 and answer.error_code in (_config_not_found, _subject_not_found):
            answer = self._exchange.repeated("PUT", place, {"compatibility": "BACKWARD"})
        if answer.status != 200:
            raise _refused(answer, f"set the compatibility of {subject}")

    def _refuse_if_unknown(self, schema_id: int) -> None:
        now_s = self._monotonic_s()
        known = self._unknown.get(schema_id)
        if known is not None and now_s < known.until_s:
            raise _record_error(Reason.UNKNOWN_SCHEMA, known.detail)
        self._tokens = min(unknown_burst_max, self._tokens + (now_s - self._tokens_at_s) * unknown_per_s)
        self._tokens_at_s = now_s
        if self._tokens < 1.0:
            detail = f"schema id {schema_id} was not looked up: too many unknown ids arrive"
            raise _record_error(Reason.UNKNOWN_SCHEMA, detail)

    def _remember_unknown(self, schema_id: int, detail: str) -> None:
        self._tokens -= 1.0
        now_s = self._monotonic_s()
        first = schema_id not in self._unknown
        if first and self._unsure_waits_s(schema_id):
            self._unsure_at_s.append(now_s)
        kept_s = unknown_first_s if first else unknown_kept_s
        self._unknown[schema_id] = _Unknown(until_s=now_s + kept_s, detail=detail)
        self._unknown.move_to_end(schema_id)
        if len(self._unknown) > unknown_kept_max:
            self._unknown.popitem(last=False)

    def _whole(self, answer: Answer, what: str) -> Any:
        """The schema in an answer, with everything it refers to inside it."""
        schema = _parsed(answer, what)
        named: dict[str, Named] = {}
        self._gather(answer, what, named, depth=0)
        try:
            return inline_references(schema, named)
        except ValueError as error:
            raise _record_error(Reason.INCOMPATIBLE_SCHEMA, f"{what} {error}") from error

    def _gather(self, answer: Answer, what: str, named: dict[str, Named], *, depth: int) -> None:
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
            # Deleted ones too, as every deserializer asks: the records that were written with them are still there.
            place = f"/subjects/{quote(subject, safe='')}/versions/{version}?deleted=true"
            found = self._exchange.call("GET", place)
            if found.status == 404 and found.error_code in (_subject_not_found, _version_not_found):
                raise _record_error(
                    Reason.UNKNOWN_SCHEMA,
                    f"{what} refers to version {version} of {subject}, which the schema registry does not have (any more)",
                )
            if found.status != 200:
                raise _unanswered(found, f"version {version} of {subject}")
            named[name] = _parsed(found, f"version {version} of {subject}")
            self._gather(found, what, named, depth=depth + 1)


def _parsed(answer: Answer, what: str) -> Any:
    kind = answer.body.get("schemaType", "AVRO") if isinstance(answer.body, dict) else None
    text = answer.member("schema", str)
    if kind != "AVRO":
        raise _record_error(Reason.INCOMPATIBLE_SCHEMA, f"{what} is not an Avro schema")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _record_error(Reason.INCOMPATIBLE_SCHEMA, f"{what} is not JSON") from error


def _incompatible(subject: str) -> ConfigError:
    return ConfigError(
        f"this version's contract is not compatible with what is registered under {subject}: name another output topic, or lift "
        "the subject's compatibility"
    )


def _refused(answer: Answer, what: str) -> ConfigError | UnavailableError:
    if answer.status in (401, 403):
        return ConfigError(f"the schema registry does not let this user {what} ({answer.status})")
    if 400 <= answer.status < 500:
        return ConfigError(f"the schema registry refuses to {what} ({answer.status}, {answer.error_code})")
    return UnavailableError(f"the schema registry answered {answer.status} when asked to {what}")


def _unanswered(answer: Answer, what: str) -> UnavailableError:
    """The error for a response that is not a schema. A 404 without a registry's error code comes from another server or a wrong path."""
    said = f"the schema registry answered {answer.status} when asked for {what}"
    if answer.status in (401, 403):
        return AccessRefusedError(f"{said}: it does not let this user read schemas (registry.username)")
    if answer.status == 404:
        return AccessRefusedError(f"{said}, not in a registry's words: is registry.url the address of one?")
    return UnavailableError(said)


def _record_error(reason: Reason, detail: str) -> RecordError:
    return RecordError(stage=Stage.DECODE, reason=reason, detail=detail)
