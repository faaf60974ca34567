"""Many cells at once, on lanes beside each other, each in a process of its own as a worker is: what a client leaves
running when its consumer is closed (after a refused LeaveGroup librdkafka 2.16 spins in `rd_kafka_thread_main`, a core
for each) ends with the process, and takes nothing from the lanes that come behind."""

import multiprocessing
import os
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Final, cast

from confluent_kafka import KafkaException

from tests.error_matrix.cells import Cell, spots
from tests.error_matrix.lane import Lane
from tests.error_matrix.verdict import Verdict
from tests.wire.proxy import Proxy

_lane_cells_max: Final = 8
_tries_max: Final = 2
_silent_s_max: Final = 400.0
"""Longer than a cell with its successor, and the reading behind both, can take."""
_ends_s: Final = 5.0
_place_of: Final = {spot.name: place for place, spot in enumerate(spots)}
Named = tuple[int, int]
"""A cell on its way to another process: the place of its spot, its code."""


def live_all(
    cells: Sequence[Cell],
    servers: str,
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
        if ends_s is not None and time.monotonic() >= ends_s:
            return
        for verdict in _lived_elsewhere(part, number, servers, ends_s):
            verdicts.append(verdict)
            tell(verdict)

    with ThreadPoolExecutor(lanes, thread_name_prefix="lane") as threads:
        for _ in threads.map(work, enumerate(parts)):
            pass
    return verdicts


def _lived_elsewhere(
    part: Sequence[Cell], number: int, servers: str, ends_s: float | None
) -> Generator[Verdict, None, None]:
    """The verdicts of these cells, from a process that lives through them. One that dies, or says nothing for too long, is a
    fault of the cell that it was at; the others of its cells have no verdict then."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    named = [(_place_of[cell.spot.name], cell.code) for cell in part]
    process = context.Process(target=_live, args=(theirs, named, number, servers, ends_s))
    process.start()
    theirs.close()
    heard = 0
    try:
        while ours.poll(_silent_s_max):
            found = cast("dict[str, Any] | None", ours.recv())
            if found is None:
                return
            yield Verdict(cell=part[heard], **found)
            heard += 1
        what = f"nothing was heard of its process for {_silent_s_max:g} s"
    except EOFError:
        process.join(_ends_s)
        what = f"its process ended with {process.exitcode}"
    finally:
        process.join(_ends_s)
        process.kill()
        process.join()
        ours.close()
    if heard < len(part):
        yield Verdict(cell=part[heard], struck=True, faults=[what])


def _live(to: Connection, named: Sequence[Named], number: int, servers: str, ends_s: float | None) -> None:
    """In the process: each verdict goes home as soon as it is there, and None behind the last."""
    with Proxy(servers) as proxy:
        lane: Lane | None = None
        for place, (spot, code) in enumerate(named):
            if ends_s is not None and time.monotonic() >= ends_s:
                break
            cell = Cell(spot=spots[spot], code=code)
            for turn in range(_tries_max):
                try:
                    lane = lane or Lane(servers, proxy, f"lane-{number}-{place}-{turn}", cell.spot.kind)
                    verdict = lane.live(cell)
                    break
                except KafkaException as error:  # of what the test asks itself
                    lane = None
                    verdict = Verdict(cell=cell, faults=[f"the test could not look: {error}"])
            to.send({name: value for name, value in vars(verdict).items() if name != "cell"})
            if verdict.faults and lane is not None:  # what it left behind is no concern of the next one
                lane.close()
                lane = None
        to.send(None)
        to.close()
        os._exit(
            0
        )  # the interpreter is not taken down under threads of the client that may still call into it
