"""What became of a cell of the matrix."""

from collections import Counter
from dataclasses import dataclass, field

from penstock.schemas.errors import PenstockError
from tests.error_matrix.cells import Cell


@dataclass(kw_only=True)
class Verdict:
    """What became of a cell."""

    cell: Cell
    struck: bool = False
    """Whether the worker asked at all."""
    ended_by: PenstockError | None = None
    """What the first worker ended with; its successor then did the rest."""
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
        if self.ended_by is not None:
            return f"exit {type(self.ended_by).__name__.removesuffix('Error')}"
        if self.renewals:
            return "new producer"
        if self.rewound["abort"]:
            return "abort and rewind"
        if self.rewound:
            return "rejoin"
        return "retry"
