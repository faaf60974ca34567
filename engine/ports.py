"""What the engine needs of the world: connectors match these by shape, and only app.py knows both sides."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.records import Outgoing, Records, Rejection

Positions = Mapping[int, int]
"""Partition of the input topic to an offset in it."""


class AssignmentListener(Protocol):
    """Told of rebalances from inside `Source.poll`, on the polling thread."""

    def on_assigned(self, partitions: Sequence[int]) -> None:
        """These partitions are newly ours; records of them follow, unless the listener calls `Source.hold` for them."""

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """These are about to go: finish what is in flight within the drain budget (the listener may call
        `Source.membership`, `Source.commit` and the sink; never `Source.poll`), or drop it."""

    def on_lost(self, partitions: Sequence[int]) -> None:
        """These are gone already: nothing of them may be committed any more."""


class Source(Protocol):
    """A consumer-group member on one input topic. Every call is made on the polling thread."""

    def poll(self, records_max: int, timeout_s: float) -> Records | None:
        """At most `records_max` of what is there, as soon as anything is: waits for the first record only, and never longer
        than asked.

        Calls the listener. May raise UnavailableError, FencedError or ConfigError (permission, offset out of range).
        """

    def pause(self) -> None:
        """Fetch nothing more from any partition, now or assigned later, while polling goes on. Idempotent."""

    def resume(self) -> None:
        """Undo pause. Idempotent."""

    def hold(self, partitions: Collection[int]) -> None:
        """Fetch nothing from exactly these, whatever pause and resume say, until they are not named any more or are no
        longer assigned; those no longer assigned are passed over."""

    def seek(self, positions: Positions) -> None:
        """Read these partitions from these offsets again; partitions no longer assigned are passed over."""

    def membership(self) -> object:
        """The fresh group membership, as the sink of the same connector wants it.

        Raises UnavailableError while the member has no generation (not joined yet).
        """

    def commit(self, positions: Positions) -> None:
        """Commit next-to-read offsets (at-least-once). Returns at once; a failure is retried with the next commit."""

    def close(self, timeout_s: float) -> None:
        """Leave the group. Idempotent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """All that one group of finished batches leaves behind, to be made visible together."""

    outgoing: Sequence[Outgoing]
    positions: Positions
    """Next-to-read offset per input partition: exactly this delivery's, never the consumer's position."""


class Progress(Enum):
    """How far a submitted delivery is."""

    PENDING = auto()
    DELIVERED = auto()


class Sink(Protocol):
    """Delivers in order. Every call is made on the polling thread."""

    def has_room(self) -> bool:
        """Whether submit may be called now."""

    def submit(self, delivery: Delivery, membership: object) -> None:
        """Begin to deliver. Only when has_room() is true. Returns without waiting for the broker longer than 200 ms."""

    def advance(self, timeout_s: float) -> int:
        """Move on whatever is submitted, waiting at most timeout_s; the number of deliveries completed, oldest first.

        Raises AbortedError when the oldest delivery certainly did not happen, and none submitted after it will: the sink is
        empty again and usable. An unknown outcome is resolved inside (a new producer with the same id, then the group's
        committed offsets read back) before it is reported as one or the other. Raises FencedError, ConfigError, InvariantError.
        """

    def abort(self) -> int:
        """Give up everything submitted and not completed; the sink is empty afterwards. Waits at most a few seconds.

        How many deliveries, oldest first, turn out delivered all the same (a commit was on its way): settle them before
        rewinding. Raises UnavailableError when that cannot be learnt in time: then only a new process may go on.
        """

    def close(self, timeout_s: float) -> None:
        """Abort what is open, release the clients. Idempotent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """The rows of a batch that could be read.

    `matrix[r]` is the record `rows[r]` of the Records given. A record with neither a row nor a rejection was skipped, as the
    settings declare for records without a value.
    """

    matrix: NDArray[
        np.generic
    ]  # (R, F) float32 or float64 (Signature.dtype), C order; a category is its code, missing is NaN
    rows: NDArray[np.int64]  # (R,) ascending indices into the Records
    rejections: Sequence[Rejection]


class Decoder(Protocol):
    """Bytes to columns. Called on the compute thread."""

    def decode(self, records: Records) -> Decoded:
        """Every record becomes a row or a rejection.

        May raise UnavailableError when a needed schema cannot be fetched now, before anything was read or counted: the batch is
        then decoded again later.
        """

    def require(self, records: Records) -> None:
        """Fetch the schemas that these records need, and decode nothing. Raises UnavailableError as `decode` would."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """What a model says of R rows."""

    outputs: Mapping[str, NDArray[np.float64]]  # numeric outputs by name, each (R, K)
    labels: NDArray[np.int64] | None  # (R,) index into `classes`, None for a model without classes
    classes: tuple[str, ...]  # empty when labels is None

    def take(self, rows: NDArray[np.int64]) -> "Predictions":
        """The predictions of these rows, in this order."""
        return Predictions(
            outputs={name: output[rows] for name, output in self.outputs.items()},
            labels=None if self.labels is None else self.labels[rows],
            classes=self.classes,
        )


class Model(Protocol):
    """A prewarmed model on one device. Called on the compute thread."""

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        """Predictions of every row. Raises ModelError when the batch as a whole cannot be run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attributions:
    """Explanations of E rows: base[r] + values[r].sum() is the raw output in `space`, up to additivity_error[r]."""

    values: NDArray[np.float64]  # (E, F) in the model's feature order
    base: NDArray[np.float64]  # (E,)
    output_index: NDArray[np.int64]  # (E,) which output (class) is explained
    output_name: str
    additivity_error: NDArray[np.float64]  # (E,)
    sampling_error: NDArray[np.float64] | None  # (E,) for methods that sample or integrate
    method: str
    space: str
    background: str | None  # digest


class Explainer(Protocol):
    """Says why. Called on the compute thread."""

    def explain(self, matrix: NDArray[np.generic], predictions: Predictions) -> Attributions:
        """Attributions of every given row, for the output that the settings ask for (the predicted class, or a fixed one).

        `predictions` are of the same rows. Raises ModelError when some row cannot be explained: the caller then asks for one at a time.
        """
