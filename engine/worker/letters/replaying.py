"""Dead letters put back on the input topic, looked at first: for the command and for the admin port alike."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from penstock.connectors.kafka.admin.permissions import require_permissions
from penstock.connectors.kafka.dead_letters import KafkaLog, ReplayWriter, call_s
from penstock.connectors.kafka.reading.one_record import OneRecord
from penstock.engine.dead_letters.letters import LetterFilter, Stored
from penstock.engine.dead_letters.replay import Replay, replay
from penstock.engine.settings.model import Settings
from penstock.engine.worker.kafka import client_config
from penstock.engine.worker.permissions import permissions, replay_group

Watch = Callable[[KafkaLog], Iterator[Stored]]
"""Reads the letters for us, so that it can show how far, or stop it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchedLog:
    """A log whose reading somebody watches."""

    log: KafkaLog
    watch: Watch

    def read(self) -> Iterator[Stored]:
        """Through `watch`."""
        return self.watch(self.log)


@dataclass(frozen=True, kw_only=True)
class Replaying:
    """The dead letters that were there at one moment, and the input topic that they go back to. One thread."""

    letters: KafkaLog
    source: OneRecord
    returns: ReplayWriter
    topic: str
    watch: Watch

    def ends(self) -> Mapping[int, int]:
        """Up to where the letters are looked at, by partition of their topic. Raises UnavailableError."""
        return self.letters.ends()

    def look(self, wanted: LetterFilter, *, again: bool) -> Replay:
        """What `put_back` would do now. Raises what penstock.engine.dead_letters.replay.replay raises."""
        return self._replay(wanted, again=again, dry_run=True)

    def put_back(self, wanted: LetterFilter, *, again: bool) -> Replay:
        """Put them back, each once. Raises what penstock.engine.dead_letters.replay.replay raises."""
        return self._replay(wanted, again=again, dry_run=False)

    def _replay(self, wanted: LetterFilter, *, again: bool, dry_run: bool) -> Replay:
        log = WatchedLog(log=self.letters, watch=self.watch)
        return replay(log, self.source, self.returns, wanted, topic=self.topic, again=again, dry_run=dry_run)


@contextmanager
def replaying(
    settings: Settings,
    *,
    watch: Watch,
    ends: Mapping[int, int] | None = None,
) -> Iterator[Replaying]:
    """The topics of the settings; `ends`: no letter from there on is looked at (None: those there are when it first looks).

    Raises ConfigError, UnavailableError.
    """
    config, group = client_config(settings.kafka), replay_group(settings)
    letters, topic = settings.output.dead_letters, settings.input.topic
    with ExitStack() as held:
        returns = ReplayWriter(config, group=group, letters_topic=letters, topic=topic)
        held.callback(returns.close)
        log = KafkaLog(config, topic=letters, group=group, ends=ends)
        held.callback(log.close)
        source = OneRecord(config, topic=topic, group=group, call_s=call_s)
        held.callback(source.close)
        yield Replaying(letters=log, source=source, returns=returns, topic=topic, watch=watch)


def proven_replaying(
    settings: Settings,
) -> Callable[[Watch, Mapping[int, int] | None], AbstractContextManager[Replaying]]:
    """`replaying` for who asks from outside: whatever permission is missing is named before anything else (ConfigError)."""

    @contextmanager
    def opened(watch: Watch, ends: Mapping[int, int] | None) -> Iterator[Replaying]:
        require_permissions(client_config(settings.kafka), permissions(settings)["replay"])
        with replaying(settings, watch=watch, ends=ends) as letters:
            yield letters

    return opened
