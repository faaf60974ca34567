"""A whole engine whose pages may act: with a section `admin`, tokens, an audit and dead letters in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.engine.clock import SystemClock
from penstock.engine.settings.admin import AdminSettings
from penstock.engine.worker.admin.actions import Told
from penstock.engine.worker.admin.port import admin_port
from tests.pages.running import Running, running_engine
from tests.unit.admin.open_port import Topic, Workers, operator, viewer
from tests.unit.admin.replay_world import World

__all__ = ["Guarded", "guarded_engine", "operator", "viewer"]


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """The engine, and what its pages acted on."""

    engine: Running
    audit: Topic
    letters: World


@contextmanager
def guarded_engine(folder: Path) -> Iterator[Guarded]:
    tokens = []
    for role, token in (("viewer", viewer), ("operator", operator)):
        (folder / role).write_text(token)
        tokens.append({"name": role, "role": role, "file": str(folder / role)})
    settings = AdminSettings.model_validate({"port": 0, "audit_topic": "audit", "tokens": tokens})
    with running_engine(folder, guarded=True) as engine:
        audit, letters = Topic(), World()
        told = Told(
            workers=Workers(), count=1, run_folder=folder, model_digest="d", set_log_level=lambda _: None,
            replays=letters.replays, trying=engine.pages.trying,
        )  # fmt: skip
        with admin_port(
            settings, told, audit, instance="i", clock=SystemClock(), count=lambda _: None,
            let_in=engine.pages.acting.let_in,
        ):  # fmt: skip
            yield Guarded(engine=engine, audit=audit, letters=letters)
