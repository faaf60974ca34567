"""Errors, named by what the one who catches them does."""

from penstock.schemas.reasons import Reason, Stage


class PenstockError(Exception):
    """The base of all errors that Penstock raises on purpose; its text is one sentence for a person."""


class ConfigError(PenstockError):
    """Stop before the first poll: a setting, a file, a model or a topic is wrong. Exit code 2."""


class NotReadyError(PenstockError):
    """Something needed did not become ready in the time allowed. Exit code 4."""


class FencedError(PenstockError):
    """A twin with the same identity took over; go, and do not come back. Exit code 3."""


class UnavailableError(PenstockError):
    """Something remote did not answer: wait and repeat."""


class AccessRefusedError(UnavailableError):
    """Something remote refuses us: it will not pass until a person acts. Wait and repeat all the same, but say so."""


class AbortedError(PenstockError):
    """The delivery did not happen, certainly: rewind every partition of it and process again."""


class InvariantError(PenstockError):
    """The program contradicts itself: stop now, commit nothing more."""


class ModelError(PenstockError):
    """The model cannot be run on these rows: try fewer, until the one at fault stands alone."""


class TooManyRejectedError(PenstockError):
    """So many records are bad that the fault is not theirs: stop, and let a person look. Exit code 1."""


class RecordError(PenstockError):
    """One record is to be set aside; its neighbours are not touched.

    `detail` says where and what, and never quotes a value of the payload.
    """

    def __init__(self, *, stage: Stage, reason: Reason, detail: str) -> None:
        super().__init__(f"{stage}: {reason}: {detail}")
        self.stage = stage
        self.reason = reason
        self.detail = detail
