"""A CSV file cut into ranges of whole records: every quote of it is followed from the beginning, so no cut falls inside one."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.batch.errors import ScoreError

_scan_bytes: Final = 1 << 20
_quote, _line_feed, _carriage_return = b'"\n\r'
_mark: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True, slots=True)
class CsvRange:
    """Bytes of a CSV file that hold whole records."""

    start: int
    end: int
    first_row: int
    """The number of its first record, the one that names the columns not counted."""
    header_end: int
    """Where the record that names the columns ends."""


def csv_ranges(
    stream: IO[bytes], *, delimiter: str, bytes_min: int, origin: str = "the file"
) -> Iterator[CsvRange]:
    """The file in ranges of at least `bytes_min` bytes, in order; the first one begins with the names of the columns.

    Records end where Arrow's reader ends them: a quote opens at the beginning of a field alone, ends at the next one that is not
    doubled, and a line without a character is no record. Raises ScoreError where the last quote does not end.
    """
    scan = _Scan(delimiter)
    start = first_row = 0
    while data := stream.read(_scan_bytes):
        if data.endswith(b"\r"):  # what follows says whether the line ends here
            data += stream.read(1)
        ends, rows = scan.lines(data)
        place = 0
        while scan.header_end:
            place += int(np.searchsorted(ends[place:], start + bytes_min))
            if place >= len(ends):
                break
            end = int(ends[place])
            if end > scan.header_end:
                yield CsvRange(start=start, end=end, first_row=first_row, header_end=scan.header_end)
                start, first_row = end, int(rows[place]) - 1
            place += 1
    scan.refuse_open(origin)
    if scan.at > start:
        yield CsvRange(start=start, end=scan.at, first_row=first_row, header_end=scan.header_end)


class WatchedCsv(io.RawIOBase):
    """The bytes of a CSV file as they are; at their end, whether the last quoted field was closed is known."""

    def __init__(self, stream: Any, *, delimiter: str) -> None:
        self._stream = stream
        self._scan = _Scan(delimiter)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        if data:
            buffer[: len(data)] = data
            self._scan.lines(data)
        return len(data)

    def refuse_open(self, origin: str) -> None:
        """Raises ScoreError where the file ended inside a quoted field, into which the reader took all that follows it."""
        self._scan.refuse_open(origin)


class _Scan:
    """What is known where the last chunk ended: inside a quoted field or not, and what stood right before."""

    def __init__(self, delimiter: str) -> None:
        self.at = 0
        self.header_end = 0
        """0: not come to it yet."""
        self._before_field = np.zeros(256, dtype=bool)
        self._before_field[[*delimiter.encode()[:1], _line_feed, _carriage_return]] = True
        self._inside = False
        self._closed_at = -2
        """Of the last quote that ended a field, for one right behind it opens it again."""
        self._last = _line_feed
        self._line_start = 0
        self._rows = 0
        self._opened_at = 0
        """Of the last quote that began a field."""

    def refuse_open(self, origin: str) -> None:
        """Raises ScoreError where what was scanned ended inside a quoted field."""
        if self._inside:
            raise ScoreError(
                f"{origin} ends inside a quoted text that begins at byte {self._opened_at}: all behind it would be taken for that text"
            )

    def lines(self, data: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where lines end in the next bytes, (N,), counted from the beginning of the file; and how many records are before each
        of these ends, (N,)."""
        chunk, begins = np.frombuffer(data, dtype=np.uint8), 0
        if not self.at and data.startswith(_mark):
            begins = len(_mark)
            self._line_start = begins
        turns = self._turns(chunk, begins)
        ends = np.flatnonzero((chunk == _line_feed) | (chunk == _carriage_return))
        inside = np.searchsorted(turns, ends) + self._inside & 1
        ends = ends[inside == 0]
        follows = np.append(chunk[1:], 0)
        ends = ends[~((chunk[ends] == _carriage_return) & (follows[ends] == _line_feed))]
        starts = np.concatenate(([self._line_start - self.at], ends[:-1] + 1))[: len(ends)]
        paired = (chunk[ends] == _line_feed) & (ends > 0) & (chunk[ends - 1] == _carriage_return)
        holds = ends - paired > starts
        rows = self._rows + np.cumsum(holds)
        if not self.header_end and holds.any():
            self.header_end = self.at + int(ends[holds.argmax()]) + 1
        absolute = ends.astype(np.int64) + self.at + 1
        if len(ends):
            self._rows, self._line_start = int(rows[-1]), int(absolute[-1])
        self._inside ^= len(turns) % 2 == 1
        if self._inside and len(turns):
            self._opened_at = self.at + int(turns[-1])
        self._last = data[-1]
        self.at += len(data)
        return absolute, rows

    def _turns(self, chunk: NDArray[np.uint8], begins: int) -> NDArray[np.int64]:
        """Where quoted fields begin and end in this chunk, in turn. Notes the last end."""
        quotes = np.flatnonzero(chunk == _quote)
        if not len(quotes):
            return quotes
        before = np.where(quotes > 0, chunk[quotes - 1], self._last)
        begins_field = self._before_field[before] | ((quotes == begins) & (self.at == 0))
        behind = np.concatenate(([self._closed_at - self.at], quotes[:-1])) + 1 == quotes
        # Nearly always each quote opens or closes. Those that should open, and stand at no beginning of a field, are text.
        opening = np.arange(len(quotes)) + self._inside & 1 == 0
        if (begins_field | behind)[opening].all():
            turns = quotes
        else:
            turns = self._one_by_one(quotes, begins_field)
        closings = turns[0 if self._inside else 1 :: 2]
        if len(closings):
            self._closed_at = self.at + int(closings[-1])
        return turns

    def _one_by_one(self, quotes: NDArray[np.int64], begins_field: NDArray[np.bool_]) -> NDArray[np.int64]:
        inside, closed_at, turns = self._inside, self._closed_at - self.at, list[int]()
        for quote, first in zip(quotes.tolist(), begins_field.tolist(), strict=True):
            if inside:
                inside, closed_at = False, quote
            elif first or quote == closed_at + 1:
                inside = True
            else:
                continue
            turns.append(quote)
        return np.array(turns, dtype=np.int64)
