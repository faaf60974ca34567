"""The cells that the matrix has, one JSON line each: a run adds to what earlier ones found."""

import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import confluent_kafka
import orjson

from tests.error_matrix.cells import codes, every_cell, spots
from tests.error_matrix.verdict import Verdict

kafka_version = "4.1.1"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of a cell, and with which versions."""

    spot: str
    code: int
    outcome: str
    took_s: float | None
    """None where only the page of an earlier run was left."""
    turn_s_max: float | None
    versions: str
    faults: tuple[str, ...] = ()

    @classmethod
    def of(cls, verdict: Verdict) -> "Row":
        """Of a cell that was just lived through."""
        client = confluent_kafka.libversion()[0]
        return cls(
            spot=verdict.cell.spot.name,
            code=verdict.cell.code,
            outcome=verdict.outcome,
            took_s=round(verdict.took_s, 3),
            turn_s_max=round(verdict.turn_s_max, 3),
            versions=f"Python {platform.python_version()}, librdkafka {client}, Kafka {kafka_version}",
            faults=tuple(verdict.faults),
        )

    @property
    def place(self) -> str:
        """As a person names the cell."""
        return f"{self.spot}, code {self.code}"


class Book:
    """The file; the newest line of a cell is the one that counts. One that was cut off by a crash is passed over."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.rows: dict[tuple[str, int], Row] = {}
        there = {(cell.spot.name, cell.code) for cell in every_cell()}
        lines = file.read_bytes().splitlines() if file.exists() else []
        for line in lines:
            try:
                found = orjson.loads(line)
                row = Row(**found | {"faults": tuple(found["faults"])})
            except (orjson.JSONDecodeError, TypeError, KeyError):
                continue
            if (row.spot, row.code) in there:
                self.rows[row.spot, row.code] = row

    def add(self, row: Row) -> None:
        """Kept at once, whatever becomes of the run."""
        self.rows[row.spot, row.code] = row
        with self._file.open("ab") as file:
            file.write(orjson.dumps(asdict(row), option=orjson.OPT_APPEND_NEWLINE))

    def in_order(self) -> list[Row]:
        """By place and code; the file is written so as well, without what newer lines replaced."""
        order = {spot.name: number for number, spot in enumerate(spots)}
        rows = sorted(self.rows.values(), key=lambda row: (order[row.spot], codes.index(row.code)))
        self._file.write_bytes(
            b"".join(orjson.dumps(asdict(r), option=orjson.OPT_APPEND_NEWLINE) for r in rows)
        )
        return rows
