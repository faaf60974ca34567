"""What an operator asks of the workers: kept in a file of the run folder, so that it holds for those too that start later."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.engine.clock import Clock
from penstock.engine.pipeline.hooks import Pausing, nothing_paused
from penstock.schemas.errors import UnavailableError

file_name: Final = "control.json"
look_every_s: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """What is asked for now."""

    pausing: Pausing = nothing_paused
    log_level: str | None = None
    """None: as the process was started."""

    def as_dict(self) -> dict[str, Any]:
        """For /api/v1/state and the file."""
        paused = "all" if self.pausing.everything else sorted(self.pausing.partitions)
        return {"paused": paused, "log_level": self.log_level}


def write_control(run_folder: Path, control: Control) -> None:
    """Tell the workers, which look twice a second. Raises UnavailableError when the folder cannot be written."""
    path = run_folder / file_name
    whole = path.with_suffix(".new")
    try:
        whole.write_text(json.dumps(control.as_dict()), encoding="utf-8")
        os.replace(whole, path)
    except OSError as error:
        raise UnavailableError(
            f"the workers cannot be told: {run_folder} cannot be written: {error.strerror}"
        ) from error


class ControlReader:
    """A worker's side. Polling thread only; looks at the file's time now and then, and reads it when that has changed."""

    def __init__(self, run_folder: Path, *, clock: Clock, set_log_level: Callable[[str], None]) -> None:
        self._path = run_folder / file_name
        self._clock = clock
        self._set_log_level = set_log_level
        self._due_s = 0.0
        self._seen = 0
        self._control = Control()

    def pausing(self) -> Pausing:
        """Which partitions are to stand still."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._due_s:
            self._due_s = now_s + look_every_s
            self._look()
        return self._control.pausing

    def _look(self) -> None:
        try:
            seen = self._path.stat().st_mtime_ns
            if seen == self._seen:
                return
            asked = json.loads(self._path.read_text(encoding="utf-8"))
        except OSError:  # nobody has asked for anything yet
            return
        self._seen = seen
        everything = asked["paused"] == "all"
        pausing = Pausing(
            everything=everything, partitions=frozenset() if everything else frozenset(asked["paused"])
        )
        if asked["log_level"] not in (None, self._control.log_level):
            self._set_log_level(asked["log_level"])
        self._control = Control(pausing=pausing, log_level=asked["log_level"])
