"""Which letters are meant, as people and programs write it: reasons, stages, since when, one partition, one offset."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

from penstock.engine.dead_letters.letters import LetterFilter
from penstock.schemas.errors import ConfigError
from penstock.schemas.reasons import Reason, Stage

reasons: Final = tuple(map(str, Reason))
stages: Final = tuple(map(str, Stage))

since_characters_max: Final = 40

_units: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_since(text: str, now_ms: int, *, name: str) -> int:
    """Milliseconds since 1970 of `30m`, `2h`, `1d` ago, or of an ISO time (UTC where it says no zone).

    Raises ConfigError, which calls the text by `name`.
    """
    if text[-1:] in _units and text[:-1].isdecimal() and len(text) <= since_characters_max:
        return now_ms - int(text[:-1]) * _units[text[-1]] * 1000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{name} {text[:since_characters_max]} is neither a time nor like 30m, 2h or 1d"
        ) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def letter_filter(
    *,
    reasons: Collection[str] | None,
    stages: Collection[str] | None,
    since_ms: int | None,
    partition: int | None,
    offset: int | None,
) -> LetterFilter:
    """The filter; None, or nothing in it, does not narrow. Raises ConfigError: offsets are counted in each partition."""
    if offset is not None and partition is None:
        raise ConfigError("an offset needs a partition: offsets are counted in each")
    return LetterFilter(
        reasons=frozenset(reasons or ()),
        stages=frozenset(stages or ()),
        since_ms=since_ms,
        partition=partition,
        offset=offset,
    )
