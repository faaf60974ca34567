"""The way back into a group after the session ran out while the group's coordinator was away."""

import logging
from collections.abc import Callable
from typing import Final

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.call_thread import Aside
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.wire.groups import group_is_served, leave_group
from penstock.schemas.errors import PenstockError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.kafka")

ask_every_s: Final = 0.1
ask_every_token_s: Final = 1.0  # where each question takes a token of its own
reachable_patience_s: Final = 3.0
"""The cluster has answered for so long, and the coordinator answers no question asked by hand: the client tries by itself."""
away_poll_s: Final = 0.05
joining_poll_s: Final = 0.01  # between two steps of a join lie milliseconds
ghost_patience_s: Final = 5.0  # so long the old id stays in the group for the new one to come


class Rejoin:
    """Polling thread only; never waits.

    librdkafka joins as soon as a coordinator lets it connect, and one that has yet to read its log refuses: then librdkafka asks
    again two seconds later, and neither its interval nor its back-off is a setting. So a member whose session ran out while the
    coordinator was away gives up its subscription, and takes it again when the coordinator answers for the group.

    The old member id goes out of the group when the new one has come: into a group without members nobody is let for
    `group.initial.rebalance.delay.ms`, and one that waits for nothing but an old member goes on at once.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        group: str,
        clock: Clock,
        subscribe: Callable[[], None],
        unsubscribe: Callable[[], None],
    ) -> None:
        """Connects to nothing yet."""
        self._subscribe = subscribe
        self._unsubscribe = unsubscribe
        self._config = config
        self._group = group
        self._clock = clock
        self._every_s = ask_every_token_s if config.mechanism == "OAUTHBEARER" else ask_every_s
        self._thread = Aside("rejoin")
        self._member_id = ""  # the last one that the group counted among its members
        self._old_id = ""  # to be taken out of the group
        self._lost = False
        self._given_up = False
        self._served: bool | None = None  # the answer that is not looked at yet
        self._since_s = 0.0  # lost, or back
        self._due_s = 0.0
        self._reachable_s: float | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return self._lost or self._old_id != ""

    @property
    def poll_max_s(self) -> float:
        """So long a poll may wait meanwhile."""
        return away_poll_s if self._lost else joining_poll_s

    def stands(self, member: bool, member_id: str) -> None:
        """Whether the group counts us among its members, and under which id; a member without partitions hears of its loss so."""
        if member:
            self._member_id = member_id
        elif not member_id and self._member_id:
            self.lost()

    def lost(self) -> None:
        """The group goes on without us, or does not answer."""
        if not self._lost:
            self._lost = True
            self._old_id, self._member_id = self._member_id, ""
            self._since_s = self._due_s = self._clock.monotonic_s()
            self._reachable_s = None

    def turn(self, member_id: str, *, answered_s: float) -> None:
        """`member_id`: the client's now, "" while it has none. `answered_s`: when the newest question was asked that the cluster
        has answered, of whatever kind."""
        now_s = self._clock.monotonic_s()
        if self._thread.busy:
            self._thread.wait(0.0)
        if not self._lost:
            self._take_out(member_id, now_s)
            return
        if answered_s > self._since_s and self._reachable_s is None:
            self._reachable_s = now_s
        tried_enough = self._reachable_s is not None and now_s - self._reachable_s >= reachable_patience_s
        served, self._served = self._served, None
        if member_id or served or (self._given_up and tried_enough):
            given_up, self._lost, self._given_up, self._since_s = self._given_up, False, False, now_s
            if given_up:
                self._subscribe()
        elif served is None:
            if not self._thread.busy and now_s >= self._due_s:
                self._due_s = now_s + self._every_s
                self._thread.run(self._ask, 0.0)
        elif not self._given_up and not tried_enough:
            self._given_up = True
            self._unsubscribe()

    def close(self) -> None:
        """Ask nothing more."""
        self._thread.close()

    def _ask(self) -> None:
        self._served = group_is_served(self._config, self._group)

    def _take_out(self, member_id: str, now_s: float) -> None:
        if member_id == self._old_id:
            self._old_id = ""  # it was not given up after all
        elif (member_id or now_s - self._since_s >= ghost_patience_s) and not self._thread.busy:
            old_id, self._old_id = self._old_id, ""
            self._thread.run(lambda: self._leave(old_id), 0.0)

    def _leave(self, old_id: str) -> None:
        try:
            leave_group(self._config, group=self._group, member_id=old_id)
        except PenstockError as error:  # whoever watches the cluster tries on
            logger.debug("%s", error, extra=LogCode.KAFKA_QUESTION_FAILED.extra)
