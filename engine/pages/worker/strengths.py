"""How strongly each feature moves the output: over the newest records that were looked at, and over the hour before those."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

newest_rows: Final = 10_000
piece_rows: Final = 250
"""By so many the newest are let go."""
before_s: Final = 3600.0
minute_s: Final = 60.0


@dataclass(slots=True)
class _Piece:
    began_s: float
    sums: NDArray[np.float64]
    rows: int = 0

    def add(self, sums: NDArray[np.float64], rows: int) -> None:
        self.sums += sums
        self.rows += rows


class Strengths:
    """Bounded: about a hundred sums by column, however many records come and however wide they are. The caller locks."""

    def __init__(self) -> None:
        self._newest: deque[_Piece] = deque()
        self._rows = 0
        self._before: deque[_Piece] = deque(maxlen=round(before_s / minute_s) + 1)
        """By the minute, of what is none of the newest any more."""

    def add(self, sums: NDArray[np.float64], rows: int, *, now_s: float) -> None:
        """Sums of |attribution| by column, shape (F,), over so many rows."""
        if not self._newest or self._newest[-1].rows >= piece_rows:
            self._newest.append(_Piece(began_s=now_s, sums=np.zeros(len(sums))))
        self._newest[-1].add(sums, rows)
        self._rows += rows
        while self._rows - self._newest[0].rows >= newest_rows:
            self._let_go(self._newest.popleft())

    def _let_go(self, piece: _Piece) -> None:
        self._rows -= piece.rows
        if not self._before or piece.began_s - self._before[-1].began_s >= minute_s:
            self._before.append(piece)
        else:
            self._before[-1].add(piece.sums, piece.rows)

    def told(self, now_s: float) -> dict[str, Any]:
        """`lately`: of the newest, with the seconds since the first of them; `before`: of the hour before that one."""
        if not self._newest:
            return {"lately": {**_told(()), "span_s": None}, "before": _told(())}
        since_s = self._newest[0].began_s
        return {
            "lately": {**_told(self._newest), "span_s": now_s - since_s},
            "before": _told([each for each in self._before if each.began_s >= since_s - before_s]),
        }


def _told(pieces: Iterable[_Piece]) -> dict[str, Any]:
    pieces = list(pieces)
    sums = np.sum([each.sums for each in pieces], axis=0).tolist() if pieces else []
    return {"rows": sum(each.rows for each in pieces), "sums": sums}
