"""What an operator can ask of a supervisor over HTTP."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from penstock.engine.admin.callers import Role
from penstock.engine.admin.control import Control, write_control
from penstock.engine.admin.gate import Action, LongAction
from penstock.engine.console.logs import levels
from penstock.engine.pages.trying import Trying
from penstock.engine.pipeline.hooks import Pausing
from penstock.engine.worker.admin.replays import Replays
from penstock.schemas.errors import ConfigError

partitions_max: Final = 100_000


class Workers(Protocol):
    """The supervisor."""

    def pids(self) -> dict[int, int]:
        """Process id by slot, of those that run."""

    def request_stop(self) -> None:
        """Drain all."""

    def request_replacement(self, slots: Sequence[int]) -> None:
        """Drain these and start others in their places, one after the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What the actions act on."""

    workers: Workers
    count: int
    run_folder: Path
    model_digest: str
    set_log_level: Callable[[str], None]
    """Of the supervisor itself."""
    replays: Replays
    trying: Trying | None = None
    """Tries records; None where there are no pages to ask for it."""


class Actions:
    """The table of what can be asked for. One action at a time; `state` and `replays` at any."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._control = Control()
        self._draining = threading.Event()

    def table(self) -> Mapping[str, Action | LongAction]:
        """By the word behind /api/v1/."""
        return {
            "state": Action(role=Role.VIEWER, target=_nothing, act=self._state, changes=False),
            "pause": Action(role=Role.OPERATOR, target=_partitions, act=self._pause),
            "resume": Action(role=Role.OPERATOR, target=_partitions, act=self._resume),
            "log-level": Action(role=Role.OPERATOR, target=_log_level, act=self._set_log_level),
            "restart": Action(role=Role.OPERATOR, target=self._worker, act=self._restart),
            "replay": LongAction(
                role=Role.OPERATOR, target=self._told.replays.target, begin=self._told.replays.begin
            ),
            "replays": Action(
                role=Role.OPERATOR, target=_nothing, act=self._told.replays.shown, changes=False
            ),
            "drain": Action(role=Role.ADMIN, target=_nothing, act=self._drain),
            **self._trials(),
        }

    def _trials(self) -> Mapping[str, Action]:
        trying = self._told.trying
        if trying is None:
            return {}
        act = Action(
            role=Role.OPERATOR, target=trying.target, act=trying.act, recorded=trying.recorded, alone=False
        )
        return {"trial": act}

    def _state(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        running = self._told.workers.pids()
        return {
            "workers": {str(slot): {"running": slot in running} for slot in range(self._told.count)},
            "draining": self._draining.is_set(),
            "model_digest": self._told.model_digest,
            **self._control.as_dict(),
        }

    def _pause(self, target: Mapping[str, Any]) -> Mapping[str, Any]:
        before = self._control.pausing
        if target["partitions"] == "all":
            return self._tell(replace(self._control, pausing=Pausing(everything=True)))
        if before.everything:
            raise ConfigError("all partitions are paused already")
        return self._tell(
            replace(self._control, pausing=Pausing(partitions=before.partitions | set(target["partitions"])))
        )

    def _resume(self, target: Mapping[str, Any]) -> Mapping[str, Any]:
        before = self._control.pausing
        if target["partitions"] == "all":
            return self._tell(replace(self._control, pausing=Pausing()))
        if before.everything:
            raise ConfigError(
                'all partitions are paused, whichever there are: {"partitions": "all"} resumes them'
            )
        return self._tell(
            replace(self._control, pausing=Pausing(partitions=before.partitions - set(target["partitions"])))
        )

    def _set_log_level(self, target: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = self._tell(replace(self._control, log_level=target["level"]))
        self._told.set_log_level(target["level"])
        return answer

    def _tell(self, control: Control) -> Mapping[str, Any]:
        write_control(self._told.run_folder, control)
        self._control = control
        return control.as_dict()

    def _worker(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        _only(body, "worker")
        worker = body.get("worker", "all")
        if worker != "all" and not (
            isinstance(worker, int) and not isinstance(worker, bool) and 0 <= worker < self._told.count
        ):
            raise ConfigError(f'worker has to be a number below {self._told.count}, or "all"')
        return {"worker": worker}

    def _restart(self, target: Mapping[str, Any]) -> Mapping[str, Any]:
        slots = range(self._told.count) if target["worker"] == "all" else (target["worker"],)
        self._told.workers.request_replacement(slots)
        return {"restarting": list(slots)}

    def _drain(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        self._draining.set()
        self._told.workers.request_stop()
        return {"draining": True}


def _only(body: Mapping[str, Any], *names: str) -> None:
    """Raises ConfigError for a member that means nothing here."""
    for name in body:
        if name not in names:
            known = ", ".join(names) or "nothing"
            raise ConfigError(f"the body holds a member that is not known here; known: {known}")


def _nothing(body: Mapping[str, Any]) -> Mapping[str, Any]:
    _only(body)
    return {}


def _partitions(body: Mapping[str, Any]) -> Mapping[str, Any]:
    _only(body, "partitions")
    asked = body.get("partitions")
    if asked == "all":
        return {"partitions": "all"}
    numbers = isinstance(asked, list) and all(
        isinstance(each, int) and not isinstance(each, bool) for each in asked
    )
    if not asked or not numbers or not all(0 <= each < partitions_max for each in asked):
        raise ConfigError('partitions has to be a list of numbers, or "all"')
    return {"partitions": sorted(set(asked))}


def _log_level(body: Mapping[str, Any]) -> Mapping[str, Any]:
    _only(body, "level")
    if body.get("level") not in levels:
        raise ConfigError(f"level has to be one of {', '.join(levels)}")
    return {"level": body["level"]}
