"""The settings of a group member: what of them has to agree with what."""

from typing import Any

import pytest
from confluent_kafka import Consumer
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.group import group_settings
from penstock.engine.settings.kafka import KafkaSettings, max_poll_interval_ms


def kafka(client: dict[str, Any]) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers="nowhere:1", group="g", client=client)


def member(max_poll_interval_s: float = 300.0, **properties: Any) -> dict[str, Any]:
    return group_settings(
        ClientConfig(bootstrap_servers="nowhere:1", properties={k.replace("_", "."): v for k, v in properties.items()}),
        group="g", protocol="classic", max_poll_interval_s=max_poll_interval_s, memory_bytes_max=64 << 20,
    )  # fmt: skip


@given(
    session_ms=st.none() | st.integers(6, 300_000), poll_s=st.floats(0.1, 300.0, allow_nan=False), text=st.booleans()
)  # fmt: skip
def test_a_member_sends_three_heartbeats_in_any_session(
    session_ms: int | None, poll_s: float, text: bool
) -> None:
    chosen = {} if session_ms is None else {"session_timeout_ms": str(session_ms) if text else session_ms}
    settings = member(poll_s, **chosen)
    session, beat = float(settings["session.timeout.ms"]), float(settings["heartbeat.interval.ms"])
    assert session == (session_ms if session_ms is not None else min(8_000, int(poll_s * 1000)))
    assert 1 <= beat <= 1000
    assert 3 * beat <= session


def test_what_a_user_says_of_heartbeats_is_obeyed_or_refused() -> None:
    settings = member(session_timeout_ms=6000, heartbeat_interval_ms=3000)
    assert settings["heartbeat.interval.ms"] == 3000
    Consumer({name: value for name, value in settings.items() if name != "logger"}).close()


@given(
    beat_ms=st.integers(1, 400_000),
    session_ms=st.none() | st.integers(1, 300_000),
    poll_ms=st.none() | st.integers(1, 400_000),
    text=st.booleans(),
)
def test_the_settings_refuse_a_heartbeat_exactly_where_the_member_would_miss_its_session(
    beat_ms: int, session_ms: int | None, poll_ms: int | None, text: bool
) -> None:
    chosen = {
        "heartbeat.interval.ms": beat_ms,
        "session.timeout.ms": session_ms,
        "max.poll.interval.ms": poll_ms,
    }
    client = {name: str(value) if text else value for name, value in chosen.items() if value is not None}
    longest_ms = max_poll_interval_ms if poll_ms is None else poll_ms
    assume(session_ms is None or session_ms <= longest_ms)  # else it is refused for that
    properties = {name.replace(".", "_"): value for name, value in client.items()}
    session = float(member(longest_ms / 1000, **properties)["session.timeout.ms"])
    if beat_ms < session:
        kafka(client)
    else:
        with pytest.raises(ValidationError, match=r"heartbeat.interval.ms, \d+, has to be less than"):
            kafka(client)
