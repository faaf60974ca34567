"""What became of a cell of the matrix."""

from collections import Counter
from dataclasses import dataclass, field

from tests.error_matrix.cells import Cell


@dataclass(kw_only=True)
class Verdict:
    """What became of a cell."""

    cell: Cell
    struck: bool = False
    """Whether the worker asked at all."""
    ended_by: str = ""
    """The name of what the first worker ended with, "" for nothing; its successor then did the rest."""
    rewound: Counter[str] = field(default_factory=Counter)
    renewals: int = 0
    took_s: float = 0.0
    turn_s_max: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """In one word of the table."""
        if self.faults:
            return "FAULT"
        if not self.struck:
            return "not asked"
        if self.ended_by:
            return f"exit {self.ended_by.removesuffix('Error')}"
        if self.renewals:
            return "new producer"
        if self.rewound["abort"]:
            return "abort and rewind"
        if self.rewound:
            return "rejoin"
        return "retry"
