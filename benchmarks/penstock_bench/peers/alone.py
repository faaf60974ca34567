"""A limit in `penstock bench peers`: ONNX Runtime alone, one thread, on ready arrays whose rows vary."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from penstock.engine.clock import SystemClock
from penstock.schemas.errors import NotReadyError
from penstock_bench import module_command
from penstock_bench.peers.records import some_rows

batches: Final = (1, 256, 1024)
rows_total: Final = 65_536
_timeout_s: Final = 120.0


def onnxruntime_alone(model: Path, *, seconds: float, seed: int) -> dict[str, dict[str, float]]:
    """Rows a second and CPU microseconds a row, by batch size, in a process of its own. Raises NotReadyError."""
    command = module_command("penstock_bench.peers.alone", str(model), str(seconds), str(seed))
    try:
        done = subprocess.run(command, capture_output=True, timeout=_timeout_s, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise NotReadyError(f"ONNX Runtime alone gave no figures: {error}") from error
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Model, seconds for each batch size, seed; prints JSON."""
    seconds, seed = float(sys.argv[2]), int(sys.argv[3])
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = some_rows(rows_total, seed=seed).astype(np.float32)
    clock = SystemClock()
    found: dict[str, Any] = {}
    for batch in batches:
        session.run(None, {name: rows[:batch]})
        done, start = 0, 0
        began_s, cpu_before_s = clock.monotonic_s(), time.process_time()
        while clock.monotonic_s() - began_s < seconds:
            session.run(None, {name: rows[start : start + batch]})
            done += batch
            start = (start + batch) % (rows_total - batch + 1)
        wall_s, cpu_s = clock.monotonic_s() - began_s, time.process_time() - cpu_before_s
        found[str(batch)] = {"rows_per_s": round(done / wall_s), "us_per_row": round(cpu_s / done * 1e6, 3)}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
