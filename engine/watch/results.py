"""Follows the output topics and gives results as they come."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from penstock.engine.clock import Clock
from penstock.engine.watch.joined import Joiner, Result
from penstock.engine.watch.messages import ExplanationReader, PredictionReader
from penstock.schemas.errors import RecordError
from penstock.schemas.records import Records

records_max = 4096


class Reader(Protocol):
    """Follows a topic; called by one thread, waits no longer than asked, may raise UnavailableError."""

    def read(self, records_max: int, timeout_s: float) -> Records | None:
        """The next records, perhaps none."""


@dataclass(kw_only=True)
class Results:
    """What the two topics say, joined."""

    predictions: Reader
    explanations: Reader | None
    clock: Clock
    foreign: int = 0
    """Messages that are none of the contracts', so far."""
    _joiner: Joiner = field(init=False)

    def __post_init__(self) -> None:
        self._joiner = Joiner(explained=self.explanations is not None)
        self._prediction, self._explanation = PredictionReader(), ExplanationReader()

    def next(self, timeout_s: float) -> Iterator[Result]:
        """Those that are whole by now, waiting for news of each topic at most so long. Raises UnavailableError, ConfigError."""
        for value in _values(self.predictions.read(records_max, timeout_s)):
            yield from self._taken(
                lambda v=value: self._joiner.predicted(  # type: ignore[misc]
                    self._prediction.message(v), now_s=self.clock.monotonic_s()
                )
            )
        if self.explanations is not None:
            for value in _values(self.explanations.read(records_max, timeout_s)):
                yield from self._taken(lambda v=value: self._joiner.explained(self._explanation.message(v)))  # type: ignore[misc]
        yield from self._joiner.due(now_s=self.clock.monotonic_s())

    def _taken(self, take: Callable[[], Result | None]) -> Iterator[Result]:
        try:
            result = take()
        except RecordError:
            self.foreign += 1
            return
        if result is not None:
            yield result


def _values(records: Records | None) -> list[bytes]:
    return [] if records is None else [value for value in records.values if value is not None]
