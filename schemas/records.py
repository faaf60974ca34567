"""Records as they arrive: columns, so that no stage handles them one by one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.reasons import Reason, Stage

Headers = Sequence[tuple[str, bytes | None]]


def no_headers(_: int) -> Headers:
    """The headers of a record that has none."""
    return ()


def none_at_all() -> bool:
    """That no record has headers."""
    return False


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """Offsets `first` to before `next` of a partition hold bytes that no client can read; `why` is the client's reason."""

    first: int
    next: int
    why: str

    @property
    def detail(self) -> str:
        """For the dead letter."""
        last = self.next - 1
        where = f"offset {last}" if last == self.first else f"offsets {self.first} to {last}"
        return f"{where} cannot be read: {self.why}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """N records of one topic in the order they were polled; within a partition the offsets ascend.

    `timestamps_ms` is -1 where a record has none. `headers(i)` is asked only for records that are set aside or whose headers are
    carried on; `any_headers()` False: none of the records has any; True: some may. Where `unreadable` has an index, that row is no
    record: it stands for a range of offsets, has the offset of the first of them and no value.
    """

    topic: str
    partitions: NDArray[np.int32]  # (N,)
    offsets: NDArray[np.int64]  # (N,)
    timestamps_ms: NDArray[np.int64]  # (N,)
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: Callable[[int], Headers] = field(default=no_headers)
    any_headers: Callable[[], bool] = field(default=none_at_all)
    unreadable: Mapping[int, Unreadable] = field(default_factory=dict)
    topic_id: str | None = None  # tells the topic from another of the same name, before or after it

    def __len__(self) -> int:
        return len(self.values)

    @staticmethod
    def of_unreadable(
        topic: str, partition: int, unreadable: Unreadable, *, topic_id: str | None = None
    ) -> "Records":
        """The one row that stands for a range of offsets."""
        return Records(
            topic=topic,
            partitions=np.array([partition], np.int32),
            offsets=np.array([unreadable.first], np.int64),
            timestamps_ms=np.array([-1], np.int64),
            keys=[None],
            values=[None],
            unreadable={0: unreadable},
            topic_id=topic_id,
        )

    def slice(self, start: int, stop: int) -> "Records":
        """Records start to stop, in the same order."""
        headers = self.headers
        return Records(
            topic=self.topic,
            partitions=self.partitions[start:stop],
            offsets=self.offsets[start:stop],
            timestamps_ms=self.timestamps_ms[start:stop],
            keys=self.keys[start:stop],
            values=self.values[start:stop],
            headers=lambda index: headers(start + index),
            any_headers=self.any_headers,
            unreadable={i - start: u for i, u in self.unreadable.items() if start <= i < stop},
            topic_id=self.topic_id,
        )

    def take(self, indices: NDArray[np.int64]) -> "Records":
        """The records at these places, in this order."""
        headers, places = self.headers, indices.tolist()
        return Records(
            topic=self.topic,
            partitions=self.partitions[indices],
            offsets=self.offsets[indices],
            timestamps_ms=self.timestamps_ms[indices],
            keys=[self.keys[place] for place in places],
            values=[self.values[place] for place in places],
            headers=lambda index: headers(places[index]),
            any_headers=self.any_headers,
            unreadable=self._unreadable_at(places) if self.unreadable else {},
            topic_id=self.topic_id,
        )

    def _unreadable_at(self, places: Sequence[int]) -> Mapping[int, Unreadable]:
        return {
            index: self.unreadable[place] for index, place in enumerate(places) if place in self.unreadable
        }

    @staticmethod
    def join(parts: "Sequence[Records]") -> "Records":
        """Records of one topic behind each other; one part is returned as it is."""
        if len(parts) == 1:
            return parts[0]
        ends = np.cumsum([len(part) for part in parts])

        def headers(index: int) -> Headers:
            part = int(np.searchsorted(ends, index, side="right"))
            return parts[part].headers(index - int(ends[part] - len(parts[part])))

        return Records(
            topic=parts[0].topic,
            partitions=np.concatenate([part.partitions for part in parts]),
            offsets=np.concatenate([part.offsets for part in parts]),
            timestamps_ms=np.concatenate([part.timestamps_ms for part in parts]),
            keys=[key for part in parts for key in part.keys],
            values=[value for part in parts for value in part.values],
            headers=headers,
            any_headers=lambda: any(part.any_headers() for part in parts),
            unreadable={
                int(end) - len(part) + index: unreadable
                for part, end in zip(parts, ends, strict=True)
                for index, unreadable in part.unreadable.items()
            },
            topic_id=parts[0].topic_id,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """One record set aside: `index` is its place in the Records it came in; `detail` quotes no payload value."""

    index: int
    stage: Stage
    reason: Reason
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """Messages for one output topic, as columns: equal-length lists.

    `partitions[i]` is the input partition the record came from: a sink sends it to the same number when both topics
    have equally many partitions, and by the key (murmur2, as the Java clients do) when they have not. `headers` is None
    where no message carries any: such messages are sent in batches.
    """

    topic: str
    keys: list[bytes | None]
    values: list[bytes | None]
    partitions: NDArray[np.int32]
    headers: Sequence[Headers] | None = None

    def __len__(self) -> int:
        return len(self.values)
