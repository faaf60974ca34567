"""An AdminClient whose calls return within a time-out, or raise one of Penstock's errors."""

import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from penstock.connectors.kafka.client import ClientConfig, ClientErrors, base_config, open_client
from penstock.connectors.kafka.errors import access_faults, elsewhere, translate
from penstock.schemas.errors import ConfigError, PenstockError

Key = TypeVar("Key", bound=Hashable)

retry_s: Final = 0.1
look_s: Final = 0.1
patience_s: Final = (
    1.0  # then we look whether TLS stands in the way: a broker that can be reached has answered by now
)
refresh_s: Final = 1.0
grace_s: Final = 2.0  # beyond the client's own time-out, which should always end a call first
absent: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
unheard: Final = frozenset({
    KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._TRANSPORT, KafkaError.REQUEST_TIMED_OUT,
})  # fmt: skip
transient: Final = elsewhere | frozenset({
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_CONTROLLER,
})  # fmt: skip
"""A fresh cluster says these for a second, and any cluster while a broker takes over another one's work."""


class AdminSession:
    """The client, and what becomes of its futures. `timeout_s` is for each call."""

    def __init__(self, config: ClientConfig, *, timeout_s: float) -> None:
        """Raises ConfigError for settings that the client refuses; connects to nothing yet."""
        self._errors = ClientErrors(config)
        self.timeout_s = timeout_s
        self.client = open_client(AdminClient, base_config(config) | {"error_cb": self._errors})

    def answer(self, future: "Future[Any]", doing: str, *, expected: frozenset[int] = frozenset()) -> Any:
        """The result, or the KafkaError when its code is an expected one; `doing` completes "cannot ...".

        Raises UnavailableError (no answer in time), ConfigError, or whatever else `translate` makes of the error.
        """
        try:
            return self._result(future, doing)
        except FutureTimeoutError as error:
            raise self._silence(doing) from error
        except KafkaException as error:
            fault = error.args[0]
            if fault.code() in expected:
                return fault
            if fault.code() in access_faults:
                self._errors(fault)
            if fault.code() in unheard | access_faults:
                raise self._silence(doing) from error
            if fault.code() in absent:
                raise ConfigError(f"cannot {doing}: it does not exist") from error
            raise translate(fault, doing) from error

    def ask(
        self,
        call: "Callable[[], Mapping[Key, Future[Any]]]",
        doing: str,
        *,
        expected: frozenset[int] = frozenset(),
    ) -> dict[Key, Any]:
        """All answers to a question that changes nothing; asked again while the brokers are settling. Raises as `answer`."""
        deadline_s = time.monotonic() + self.timeout_s
        while True:
            answers = {
                key: self.answer(future, doing, expected=expected | transient)
                for key, future in call().items()
            }
            faults = [a for a in answers.values() if isinstance(a, KafkaError) and a.code() in transient]
            if not faults:
                return answers
            if time.monotonic() >= deadline_s:
                raise translate(faults[0], doing)
            if any(fault.code() in elsewhere for fault in faults):
                self.look_up_leaders()
            time.sleep(retry_s)

    def look_up_leaders(self) -> None:
        """Ask for metadata, after an error that says that a partition is led `elsewhere`: not every call of the client does so by
        itself, and until it does it asks the leader that it knows, by the epoch that it knows."""
        with suppress(KafkaException):
            self.client.list_topics(timeout=refresh_s)

    def _result(self, future: "Future[Any]", doing: str) -> Any:
        """The future's result; ConfigError as soon as it is known that there will be none."""
        begin_s = time.monotonic()
        while True:
            left_s = begin_s + self.timeout_s + grace_s - time.monotonic()
            try:
                answer = future.result(min(look_s, max(left_s, 0.0)))
            except FutureTimeoutError:
                if left_s <= 0:
                    raise
            else:
                self._errors.let_in()
                return answer
            self.client.poll(0)
            refused = self._errors.refusal(doing, look=time.monotonic() - begin_s > patience_s)
            if refused is not None:
                raise refused

    def _silence(self, doing: str) -> PenstockError:
        self.client.poll(0)  # hands over what the client has to say, a refused password for one
        return self._errors.explain(doing)
