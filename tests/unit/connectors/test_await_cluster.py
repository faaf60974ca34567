"""A cluster that refuses us is believed when it does so twice in a row: one that starts or ends may break a log-in off."""

from collections.abc import Iterator
from typing import Any

import pytest

from penstock.connectors.kafka import await_cluster as module
from penstock.connectors.kafka.await_cluster import await_cluster, refused_pause_s
from penstock.connectors.kafka.client import ClientConfig
from penstock.schemas.errors import ConfigError, UnavailableError
from tests.clocks import HandClock

refused, away = (
    ConfigError("the broker does not accept this name and password"),
    UnavailableError("no answer in time"),
)


class Session:
    """One try: the next of the answers."""

    answers: Iterator[Exception | None]

    def __init__(self, config: ClientConfig, *, timeout_s: float) -> None:
        self.client = self

    def describe_cluster(self, request_timeout: float) -> None: ...
    def answer(self, future: Any, what: str) -> None:
        if (error := next(self.answers)) is not None:
            raise error


def waited(monkeypatch: pytest.MonkeyPatch, *answers: Exception | None) -> tuple[bool, float]:
    """Whether there was a cluster in the end, and after how many seconds."""
    Session.answers = iter(answers)
    monkeypatch.setattr(module, "AdminSession", Session)
    clock = HandClock()
    found = await_cluster(
        ClientConfig(bootstrap_servers="b:1"),
        clock=clock,
        stopping=lambda: False,
        waiting=lambda text, for_s: None,
    )
    return found, clock.now_s - HandClock().now_s


def test_one_refusal_is_asked_about_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found, took_s = waited(monkeypatch, refused, None)
    assert found
    assert took_s == refused_pause_s


def test_a_refusal_between_outages_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waited(monkeypatch, away, refused, away, refused, away, None)[0]


def test_two_in_a_row_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="name and password"):
        waited(monkeypatch, away, refused, refused, None)
