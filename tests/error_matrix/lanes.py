"""Many cells at once, on lanes beside each other."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from confluent_kafka import KafkaException

from tests.error_matrix.cells import Cell
from tests.error_matrix.lane import Lane
from tests.error_matrix.verdict import Verdict
from tests.wire.proxy import Proxy

_lane_cells_max: Final = 8
_tries_max: Final = 2


def live_all(
    cells: Sequence[Cell],
    servers: str,
    proxy: Proxy,
    lanes: int,
    tell: Callable[[Verdict], None] = lambda _: None,
    *,
    ends_s: float | None = None,
) -> list[Verdict]:
    """Every cell, on so many lanes at once. `tell` is called with each verdict. After `ends_s`, on the monotonic clock, no
    other cell is begun."""
    kinds = sorted({cell.spot.kind for cell in cells})
    rows = [[cell for cell in cells if cell.spot.kind == kind] for kind in kinds]
    parts = [
        row[first : first + _lane_cells_max] for row in rows for first in range(0, len(row), _lane_cells_max)
    ]
    verdicts: list[Verdict] = []

    def work(numbered: tuple[int, list[Cell]]) -> None:
        number, part = numbered
        lane: Lane | None = None
        for place, cell in enumerate(part):
            if ends_s is not None and time.monotonic() >= ends_s:
                break
            for turn in range(_tries_max):
                try:
                    lane = lane or Lane(servers, proxy, f"lane-{number}-{place}-{turn}", cell.spot.kind)
                    verdict = lane.live(cell)
                    break
                except KafkaException as error:  # of what the test asks itself
                    lane = None
                    verdict = Verdict(cell=cell, faults=[f"the test could not look: {error}"])
            verdicts.append(verdict)
            tell(verdict)
            if verdict.faults and lane is not None:  # what it left behind is no concern of the next one
                lane.close()
                lane = None
        if lane is not None:
            lane.close()

    with ThreadPoolExecutor(lanes, thread_name_prefix="lane") as threads:
        for _ in threads.map(work, enumerate(parts)):
            pass
    return verdicts
