"""What a running engine says of its own future: its forecast, and the likeliest cause."""

from dataclasses import dataclass
from typing import Any

from penstock.engine.watch.look import Engine
from penstock.schemas.errors import UnavailableError


@dataclass(frozen=True, kw_only=True, slots=True)
class ToldCause:
    """A cause in the engine's words."""

    cause: str
    text: str
    evidence: str
    command: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ToldHints:
    """What /api/v1/hints says; the likeliest cause first."""

    forecast: str  # or why there is none
    breach_s: tuple[float, float] | None  # between which times from now; 0, 0: it is breached
    causes: tuple[ToldCause, ...]
    ruled_out: tuple[str, ...]

    def lines(self) -> list[str]:
        """For a person: the forecast, and the likeliest cause with what to type next."""
        found = [f"forecast: {self.forecast}"]
        if self.causes:
            first = self.causes[0]
            found.append(f"likeliest cause: {first.text} ({first.evidence}): {first.command}")
        return found


def ask_hints(url: str) -> ToldHints:
    """Ask once, for three seconds at most. Raises ConfigError for what is no address, UnavailableError when nobody answers as an engine does."""
    document = Engine(url).hints()
    try:
        return _told(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnavailableError(f"{url}/api/v1/hints does not answer as an engine does") from error


def _told(document: Any) -> ToldHints:
    breach = document["breach"]
    return ToldHints(
        forecast=" ".join(str(each["text"]) for each in document["summary"]),
        breach_s=None if breach is None else (float(breach["from_s"]), float(breach["to_s"])),
        causes=tuple(
            ToldCause(
                cause=str(each["cause"]),
                text=str(each["text"]["text"]),
                evidence=str(each["evidence"]["text"]),
                command=str(each["command"]),
            )
            for each in document["causes"]
        ),
        ruled_out=tuple(str(each["text"]["text"]) for each in document["ruled_out"]),
    )
