"""A client that is thrown away when it is not answered: one that lived through a long outage may never be again."""

import logging
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from penstock.schemas.errors import UnavailableError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.kafka")

failures_max: Final = 2


class Closable(Protocol):
    """What is renewed."""

    def close(self) -> None:
        """Release it. Idempotent."""


Client = TypeVar("Client", bound=Closable)
Answer = TypeVar("Answer")


class Renewed(Generic[Client]):
    """Opens a client when it is needed, and another after `failures_max` calls in a row without an answer. One thread.

    librdkafka's admin client, asked for a group's members, times out for ever after an outage of about 100 s, while a new
    one is answered at once.
    """

    def __init__(self, open: Callable[[], Client], *, name: str) -> None:
        """`open` may raise ConfigError and connects to nothing; `name` completes "a new client for ...". Opens one at once."""
        self._open = open
        self._name = name
        self._client: Client | None = open()
        self._failures = 0
        self.renewals = 0

    def use(self, call: Callable[[Client], Answer]) -> Answer:
        """What `call` makes of the client. Raises what it raises; UnavailableError is what counts as no answer."""
        if self._client is None:
            self._client = self._open()
        try:
            answer = call(self._client)
        except UnavailableError:
            self._failures += 1
            if self._failures >= failures_max:
                self._renew()
            raise
        self._failures = 0
        return answer

    def close(self) -> None:
        """Release the client. Idempotent."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _renew(self) -> None:
        self.renewals += 1
        if self._failures == failures_max:
            logger.info(
                "a new client for %s: the one before was not answered %d times",
                self._name,
                failures_max,
                extra=LogCode.KAFKA_CLIENT_RENEWED.extra,
            )
        self.close()
