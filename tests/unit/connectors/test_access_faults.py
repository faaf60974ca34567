"""What is said of a connection that was let in before: it passes, whatever request it is said of."""

import itertools
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from penstock.connectors.delivery.producer_port import RefusedError
from penstock.connectors.kafka.admin import session as session_module
from penstock.connectors.kafka.admin.session import AdminSession
from penstock.connectors.kafka.client import ClientConfig, ClientErrors
from penstock.connectors.kafka.errors import consumer_error, is_refusal, transaction_error, translate
from penstock.connectors.kafka.reading.member import GroupMember
from penstock.schemas.errors import AbortedError, ConfigError, PenstockError, UnavailableError
from tests.clocks import HandClock

password = ClientConfig(
    bootstrap_servers="127.0.0.1:1", protocol="SASL_PLAINTEXT", mechanism="PLAIN", username="u", password="p"
)
bearer = ClientConfig(
    bootstrap_servers="127.0.0.1:1", protocol="SASL_PLAINTEXT", mechanism="OAUTHBEARER",
    oauth_token_url="http://127.0.0.1:1/", oauth_client_id="c", oauth_client_secret="s",
)  # fmt: skip

codes = [
    KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError._SSL,
]  # fmt: skip
texts = [
    "FindCoordinator response error: Local: Authentication failure",
    "Failed to end transaction: EndTxn failed: Local: Authentication failure",
    'SASL authentication error: {"status":"invalid_token"}',
]
flags = list(itertools.product([False, True], repeat=3))  # fatal, retriable, asks for an abort


@pytest.mark.parametrize("code", codes)
@pytest.mark.parametrize("text", texts)
@pytest.mark.parametrize("flag", flags)
def test_none_is_taken_for_a_wrong_setting(code: int, text: str, flag: tuple[bool, bool, bool]) -> None:
    error = KafkaError(code, text, *flag)
    assert not is_refusal(error)
    assert type(consumer_error(error, "topic t")) is UnavailableError
    assert not isinstance(transaction_error(KafkaException(error)), RefusedError)
    assert type(translate(error, "read topic t")) is (AbortedError if flag[2] else UnavailableError)
    ended = KafkaError(KafkaError._FATAL, f"Fatal error: {KafkaError(code).str()}: {text}")
    assert type(consumer_error(ended, "topic t")) is UnavailableError


@pytest.mark.parametrize("code", codes)
def test_a_poll_that_brings_one_does_not_end_the_member(code: int) -> None:
    """librdkafka looks for the coordinator over a connection that is logged in anew just then."""
    settings = {"bootstrap.servers": "127.0.0.1:1", "group.id": "g"}
    member = GroupMember(bearer, settings, group="g", topic="t", protocol="classic", clock=HandClock())
    member.note_error(KafkaError(code, texts[0]), "topic t")
    member.raise_failure()
    member.note_error(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), "topic t")
    with pytest.raises(ConfigError, match="permission Read for the consumer group"):
        member.raise_failure()
    member.close(5.0)


@pytest.fixture(autouse=True)
def little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the client's own time-out, which no client has here."""
    monkeypatch.setattr(session_module, "grace_s", 0.0)


class Cluster:
    """An AdminClient that serves the client's own news."""

    def __init__(self, errors: ClientErrors) -> None:
        self._errors = errors
        self.news: list[KafkaError] = []

    def poll(self, _: float) -> None:
        while self.news:
            self._errors(self.news.pop(0))


def session(config: ClientConfig, timeout_s: float = 1.0) -> tuple[AdminSession, Cluster]:
    made = AdminSession(config, timeout_s=timeout_s)
    cluster = Cluster(made._errors)
    made.client = cluster  # type: ignore[assignment]  # the news are made here
    return made, cluster


def failed(error: KafkaError) -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_exception(KafkaException(error))
    return future


def answered(after_s: float = 0.0) -> "Future[Any]":
    future: Future[Any] = Future()
    if after_s:
        threading.Timer(after_s, future.set_result, ["answer"]).start()
    else:
        future.set_result("answer")
    return future


def raised(asked: AdminSession, future: "Future[Any]") -> PenstockError:
    with pytest.raises(PenstockError) as caught:
        asked.answer(future, "ask")
    return caught.value


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (bearer, ConfigError),  # the first start: the token may be for another client
        (password, ConfigError),
        (replace(bearer, proven=True), UnavailableError),  # the next log-in has another token
        (replace(password, proven=True), ConfigError),  # which stays what it is
    ],
)
def test_a_login_that_is_refused_in_an_answer_is_told_as_one_that_is_reported(
    config: ClientConfig, kind: type[PenstockError]
) -> None:
    refused = KafkaError(KafkaError._AUTHENTICATION, texts[2])
    asked, _ = session(config)
    told = raised(asked, failed(refused))
    assert type(told) is kind
    asked, cluster = session(config)
    cluster.news.append(refused)
    reported = raised(asked, Future())
    assert type(reported) is kind
    assert str(told) == str(reported)


@pytest.mark.parametrize("config", [bearer, password])
@pytest.mark.parametrize("code", [KafkaError._AUTHENTICATION, KafkaError._SSL])
def test_a_session_that_was_answered_once_takes_no_refusal_for_a_wrong_setting(
    config: ClientConfig, code: int
) -> None:
    asked, cluster = session(config)
    assert asked.answer(answered(), "ask") == "answer"
    cluster.news.append(KafkaError(code, texts[2]))
    assert type(raised(asked, Future())) is UnavailableError
    assert type(raised(asked, failed(KafkaError(code, texts[2])))) is UnavailableError
    # Nor is what was refused before held against a slow answer.
    assert asked.answer(answered(0.3), "ask") == "answer"
    assert str(raised(asked, Future())) == "cannot ask: no answer in time"


def test_a_refusal_at_the_first_question_is_told_at_once() -> None:
    asked, cluster = session(password, 60.0)
    cluster.news.append(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    began_s = time.monotonic()
    assert "the broker does not accept this name and password" in str(raised(asked, Future()))
    assert time.monotonic() - began_s < 10.0
