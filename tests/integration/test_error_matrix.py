"""A sample of the protocol error matrix (docs/figures/error-matrix.md), and the cells that once were faults."""

from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.connectors.embedded.kafka import EmbeddedKafka
from tests.error_matrix.book import Book, Row
from tests.error_matrix.cells import codes, every_cell, sample, spots
from tests.error_matrix.lanes import live_all
from tests.error_matrix.run import broker_settings, report
from tests.error_matrix.verdict import Verdict

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]

# A client at its end was waited for; and a commit that was refused and done all the same was delivered a second time.
once_faults = (
    ("ConsumerGroupHeartbeat refused consumer protocol", 1),
    ("ConsumerGroupHeartbeat refused consumer protocol", 81),
    ("Heartbeat refused exactly once", 82),
    ("EndTxn top exactly once", 11),
    ("EndTxn top exactly once", 78),
    ("ListOffsets inner exactly once", 89),
)


def test_a_sample_of_the_matrix_ends_in_time_and_loses_nothing(
    start_kafka: Callable[..., EmbeddedKafka],
) -> None:
    cells = sample(per_spot=2, seed=4, always=once_faults)
    kafka = start_kafka(settings=broker_settings)
    verdicts = live_all(cells, kafka.bootstrap_servers, lanes=8)
    faults = [f"{each.cell}: {'; '.join(each.faults)}" for each in verdicts if each.faults]
    assert faults == []
    assert len(verdicts) == len(cells)
    assert [str(each.cell) for each in verdicts if not each.struck] == []


def test_the_matrix_is_whole() -> None:
    cells = every_cell()
    assert (
        len({(cell.spot.name, cell.code) for cell in cells})
        == len(cells)
        == len(spots) * len(codes) - 2
        >= 1200
    )


def test_the_table_has_a_place_for_every_cell() -> None:
    verdicts = [Verdict(cell=cell, struck=True) for cell in every_cell()]
    verdicts[5].faults.append("lost: everything")
    table = report([Row.of(verdict) for verdict in verdicts])
    rows = [line for line in table.splitlines() if line.startswith("| ") and "refused" not in line]
    assert sum(line.count(" r ") for line in rows[-len(codes) :]) == len(verdicts) - 1
    assert "lost: everything" in table


def test_a_run_adds_to_the_cells_that_are_there(tmp_path: Path) -> None:
    """One that was stopped in the middle of a line as well; what was lived through again counts as it was the last time."""
    file, cells = tmp_path / "m.jsonl", every_cell()
    first = Book(file)
    for cell in cells[:3]:
        first.add(Row.of(Verdict(cell=cell, struck=True)))
    with file.open("ab") as half:
        half.write(b'{"spot": "Prod')
    again = Book(file)
    assert len(again.rows) == 3
    again.in_order()
    again.add(Row.of(Verdict(cell=cells[0], struck=True, renewals=1)))
    again.add(Row.of(Verdict(cell=cells[-1], struck=True)))
    rows = Book(file).in_order()
    assert [(row.spot, row.code) for row in rows] == [
        (cell.spot.name, cell.code) for cell in (*cells[:3], cells[-1])
    ]
    assert [row.outcome for row in rows] == ["new producer", "retry", "retry", "retry"]
    assert len(file.read_bytes().splitlines()) == 4
