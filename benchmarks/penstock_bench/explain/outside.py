"""SHAP packages that want an environment of their own: a process for each, which times itself on the same model and rows."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.schemas.errors import ConfigError
from penstock_bench.environments import sources
from penstock_bench.explain.workload import Rows, Workload, as_plain_trees

folder_of_rivals: Final = "explain"
process_timeout_s: Final = 300.0
call_s_max: Final = 2.0
"""Where one who works row by row would take longer for a batch, fewer rows stand for it."""
_one_thread: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"),
    "1",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outside:
    """An explainer under benchmarks/explain: its folder, and the function there that makes it ready."""

    folder: str
    maker: str

    @property
    def environment(self) -> str:
        """The name of its environment, as python_of takes it."""
        return f"{folder_of_rivals}/{self.folder}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What such a process found: the sample's values, and figures of its own."""

    values: NDArray[np.float64]  # (sample rows, F)
    version: str
    ready_s: float
    batches: dict[str, dict[str, float]]


def write_task(
    folder: Path, work: Workload, sample: Rows, *, batches: Sequence[int], seconds: float, calls_max: int
) -> None:
    """Everything the processes read, into the folder."""
    task = {"batches": list(batches), "seconds": seconds, "calls_max": calls_max, "call_s_max": call_s_max}
    (folder / "task.json").write_bytes(orjson.dumps(task))
    (folder / "model.json").write_bytes(orjson.dumps(_as_before(work)))
    np.save(folder / "rows.npy", work.rows)
    np.save(folder / "sample.npy", sample)
    np.save(folder / "background.npy", work.background)
    trees = as_plain_trees(work.forest)["trees"]
    arrays = {f"{number}.{name}": array for number, tree in enumerate(trees) for name, array in tree.items()}
    np.savez(folder / "trees.npz", **arrays)


def measure(
    python: Path,
    rival: Outside,
    folder: Path,
    *,
    rivals: Path = sources / folder_of_rivals,
    environ: Mapping[str, str] = os.environ,
    timeout_s: float = process_timeout_s,
) -> Measured:
    """Run one and read what it found. Raises ConfigError in one sentence when it fails, or takes too long."""
    command = [str(python), "-W", "ignore", str(rivals / "measure.py")]
    command += [str(rivals / rival.folder / "explainer.py"), rival.maker, str(folder)]
    alone = {name: value for name, value in environ.items() if name != "PYTHONPATH"} | _one_thread
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            env=alone, timeout=timeout_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{rival.folder} took more than {timeout_s:g} s") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        said = [line for line in done.stderr.strip().splitlines() if line] or ["it said nothing"]
        raise ConfigError(f"{rival.folder} failed: {said[-1][:200]}")
    try:
        found = orjson.loads(lines[-1])
        values = np.load(folder / "values.npy", allow_pickle=False)
        return Measured(
            values=values, version=found["version"], ready_s=found["ready_s"], batches=found["batches"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{rival.folder} left no figures behind: {error}") from error


def _as_before(work: Workload) -> Any:
    """XGBoost's own JSON as versions before 3.1 wrote it, which the rivals and all later versions read."""
    model = orjson.loads(bytes(work.booster.save_raw("json")))
    learner = model["learner"]
    parameters = learner["learner_model_param"]
    parameters["base_score"] = parameters["base_score"].strip("[]")
    for tree in learner["gradient_booster"]["model"]["trees"]:
        tree["default_left"] = [flag == 1 for flag in tree["default_left"]]
    return model
