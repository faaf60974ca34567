"""One rival of `penstock bench explain`, in its own environment: makes its explainer ready, and times it inside this process.

    python measure.py EXPLAINER.py MAKER FOLDER

EXPLAINER.py has a function MAKER from the folder to a function from rows (n, F) to values (n, F), says its version(), and
whether it works row by row. The folder holds task.json
(batches, seconds, calls_max, call_s_max), rows.npy and sample.npy (float32) and what the makers read. The values of the sample go to
values.npy there; what was measured is the last line printed, as JSON.
"""

import importlib.util
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np


def main() -> None:
    explainer, maker, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, whatever threads the rival starts
    task = json.loads((folder / "task.json").read_text())
    rows = np.load(folder / "rows.npy")
    spec = importlib.util.spec_from_file_location("explainer", explainer)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    started = time.perf_counter()
    explain = getattr(module, maker)(folder)
    values = explain(np.load(folder / "sample.npy"))
    ready_s = time.perf_counter() - started
    np.save(folder / "values.npy", np.asarray(values, dtype=np.float64))
    batches = {}
    for batch in task["batches"]:
        count = batch
        if module.row_by_row:  # fewer rows stand for a batch that would take too long
            row_s = timed(explain, rows[:1])
            count = max(1, min(batch, int(task["call_s_max"] / row_s)))
        batches[str(batch)] = measured(explain, rows, count, batch, task)
    print(json.dumps({"ready_s": ready_s, "version": module.version(), "batches": batches}))


def measured(explain, rows, count, batch, task) -> dict:
    """Median time of a call, and what it makes of the batch; every call gets other rows."""
    times, start = [timed(explain, rows[:count])], 0
    if times[0] < task["call_s_max"]:
        times.clear()  # that one warmed up; a long one is not asked twice
    while not times or (sum(times) < task["seconds"] and len(times) < task["calls_max"]):
        start = start + count if start + 2 * count <= len(rows) else 0
        times.append(timed(explain, rows[start : start + count]))
    call_s = statistics.median(times) * batch / count
    return {"rows_per_s": batch / call_s, "call_ms": call_s * 1e3, "calls": len(times)}


def timed(explain, rows) -> float:
    began = time.perf_counter()
    explain(rows)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
