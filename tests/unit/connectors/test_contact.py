"""Which member is taken out of the group: one that the client has given up, and never the one that it is."""

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from penstock.connectors.kafka import contact as contact_module
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.contact import KafkaContact
from penstock.connectors.kafka.rejoin import ghost_patience_s


@pytest.fixture
def contact() -> Iterator[KafkaContact]:
    """Of a cluster that never answers, so that nobody is taken out meanwhile."""
    made = KafkaContact(
        ClientConfig(bootstrap_servers="127.0.0.1:1"),
        topic="t",
        group="g",
        member="w",
        monotonic_s=time.monotonic,
    )
    yield made
    made.close()


def test_an_id_that_was_given_up_is_to_be_taken_out(contact: KafkaContact) -> None:
    contact.standing(True, "first")
    contact.standing(False, "")
    contact.standing(True, "second")
    assert contact._ghost == "first"


def test_an_id_that_comes_back_is_not(contact: KafkaContact) -> None:
    contact.standing(True, "first")
    contact.standing(False, "")
    contact.standing(True, "first")
    assert contact._ghost == ""


class Watched:
    """A cluster that answers at once, and whom it was told to let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        self.asked = 0
        self.out: list[str] = []
        self._changed = threading.Condition()
        answers = SimpleNamespace(
            list_topics=lambda *_, **__: SimpleNamespace(topics={}), poll=lambda _: None
        )
        monkeypatch.setattr(contact_module, "open_client", lambda *_: answers)
        monkeypatch.setattr(
            contact_module, "leave_group", lambda *_, member_id, **__: self.out.append(member_id)
        )
        monkeypatch.setattr(contact_module, "ask_every_s", 0.01)
        monkeypatch.setattr(contact_module, "ask_lost_every_s", 0.01)
        self.contact = KafkaContact(
            ClientConfig(bootstrap_servers="nowhere:1"),
            topic="t",
            group="g",
            member="w",
            monotonic_s=self.look,
        )

    def look(self) -> float:
        with self._changed:
            self.asked += 1
            self._changed.notify_all()
        return self.now_s

    def some_questions(self) -> None:
        """Until it has asked several times more."""
        with self._changed:
            until = self.asked + 20
            assert self._changed.wait_for(lambda: self.asked >= until, 30.0)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Watched]]:
    made: list[Watched] = []

    def make() -> Watched:
        made.append(Watched(monkeypatch))
        return made[-1]

    yield make
    for each in made:
        each.contact.close()


def test_the_old_id_goes_when_the_new_one_has_come_since_an_empty_group_lets_nobody_in_for_a_while(
    watched: Callable[[], Watched],
) -> None:
    ground = watched()
    ground.contact.standing(True, "first")
    ground.contact.standing(False, "")
    ground.some_questions()
    assert ground.out == []
    ground.contact.standing(False, "second")
    ground.some_questions()
    assert ground.out == ["first"]


def test_the_old_id_goes_without_a_new_one_after_a_while(watched: Callable[[], Watched]) -> None:
    ground = watched()
    ground.contact.standing(True, "first")
    ground.contact.standing(False, "")
    ground.some_questions()
    assert ground.out == []
    ground.now_s += ghost_patience_s
    ground.some_questions()
    assert ground.out == ["first"]
