"""The way back into a group after an outage: when the subscription goes and comes, and which id is taken out."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.connectors.kafka import rejoin as rejoin_module
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.rejoin import (
    ask_every_s,
    ghost_patience_s,
    reachable_patience_s,
)
from penstock.engine.clock import SystemClock
from penstock.schemas.errors import UnavailableError


class InLine:
    """Aside whose calls end at once."""

    busy = False

    def __init__(self, name: str) -> None: ...
    def run(self, call: Callable[[], None], timeout_s: float) -> bool:
        call()
        return True


class HandClock(SystemClock):
    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s


class Ground:
    """A member whose session ran out, and the coordinator of its group."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.served = False
        self.done: list[str] = []
        self.leaves: Callable[[str], None] = lambda member_id: self.done.append(f"{member_id} out")
        self.clock = HandClock()
        monkeypatch.setattr(rejoin_module, "Aside", InLine)
        monkeypatch.setattr(rejoin_module, "group_is_served", lambda *_: self.served)
        monkeypatch.setattr(rejoin_module, "leave_group", lambda *_, member_id, **__: self.leaves(member_id))
        self.rejoin = rejoin_module.Rejoin(
            ClientConfig(bootstrap_servers="nowhere:1"), group="g", clock=self.clock,
            subscribe=lambda: self.done.append("subscribed"), unsubscribe=lambda: self.done.append("unsubscribed"),
        )  # fmt: skip
        self.rejoin.stands(True, "old")
        self.rejoin.lost()

    def turns(self, seconds: float, member_id: str = "", *, answered_s: float = 0.0) -> None:
        for _ in range(round(seconds / ask_every_s)):
            if self.rejoin:
                self.rejoin.turn(member_id, answered_s=answered_s)
            self.clock.now_s += ask_every_s


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground(monkeypatch)


def test_the_subscription_is_given_up_until_the_coordinator_answers_and_the_old_id_goes_after_the_new_one_came(
    ground: Ground,
) -> None:
    ground.turns(60.0)
    assert ground.done == ["unsubscribed"]
    ground.served = True
    ground.turns(3 * ask_every_s)
    assert ground.done == ["unsubscribed", "subscribed"]
    ground.turns(3 * ask_every_s, "new")
    assert ground.done == ["unsubscribed", "subscribed", "old out"]
    assert not ground.rejoin


def test_a_member_without_partitions_is_not_told_of_its_loss_and_hears_of_it(ground: Ground) -> None:
    ground.served = True
    ground.turns(3 * ask_every_s, "new")
    ground.done.clear()
    ground.rejoin.stands(True, "new")
    ground.rejoin.stands(False, "new")  # it joins again, as members do at every change
    assert not ground.rejoin
    ground.rejoin.stands(False, "")
    ground.served = False
    ground.turns(1.0)
    assert ground.done == ["unsubscribed"]
    ground.served = True
    ground.turns(1.0)
    ground.turns(1.0, "newer")
    assert ground.done == ["unsubscribed", "subscribed", "new out"]


def test_where_the_coordinator_is_there_the_subscription_stays(ground: Ground) -> None:
    """The process stood still for longer than a session, and the group went on."""
    ground.served = True
    ground.turns(3 * ask_every_s)
    ground.turns(3 * ask_every_s, "new")
    assert ground.done == ["old out"]


def test_a_client_that_is_joining_already_is_let_go_on(ground: Ground) -> None:
    ground.turns(1.0, "new")
    assert ground.done == ["old out"]


def test_a_coordinator_that_answers_no_hand_is_left_to_the_client(ground: Ground) -> None:
    """A login that is not spoken here, a port that is closed to others: the client joins as it would have."""
    ground.turns(10.0)
    back_s = ground.clock.now_s
    ground.turns(reachable_patience_s - 2 * ask_every_s, answered_s=back_s)
    assert ground.done == ["unsubscribed"]
    ground.turns(4 * ask_every_s, answered_s=back_s)
    assert ground.done == ["unsubscribed", "subscribed"]


def test_an_old_id_goes_though_no_new_one_comes(ground: Ground) -> None:
    ground.served = True
    ground.turns(ghost_patience_s)
    assert ground.done == []
    ground.turns(4 * ask_every_s)
    assert ground.done == ["old out"]


def test_an_id_that_comes_back_stays(ground: Ground) -> None:
    ground.turns(1.0, "old")
    assert ground.done == []
    assert not ground.rejoin


def test_a_coordinator_that_lets_nobody_out_is_left_to_who_watches_the_cluster(ground: Ground) -> None:
    def refused(member_id: str) -> None:
        ground.done.append("refused")
        raise UnavailableError("cannot tell group g that a member left: no answer")

    ground.leaves = refused
    ground.turns(1.0, "new")
    assert ground.done == ["refused"]
    assert not ground.rejoin


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["", "old", "new"]), st.booleans(), st.integers(1, 40)),
        max_size=12,
    )
)
def test_whatever_happens_it_ends_subscribed(steps: list[tuple[bool, str, bool, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        ground = Ground(patch)
        for served, member_id, lost_again, turns in steps:
            ground.served = served
            subscribed = ground.done.count("subscribed") == ground.done.count("unsubscribed")
            ground.turns(turns * ask_every_s, member_id if subscribed else "")
            if lost_again and subscribed:
                ground.rejoin.lost()
        ground.served = True
        ground.turns(1.0)
        flips = [what for what in ground.done if what.endswith("subscribed")]
        assert flips == ["unsubscribed", "subscribed"] * (len(flips) // 2)
