"""Names of workers and their transactional ids: no two workers have the same, and permissions and upgrades go on."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.settings.kafka import KafkaSettings
from penstock.engine.settings.worker_names import is_worker, transactional_id, worker_name

parts = st.text(alphabet="ab1-.", min_size=1, max_size=6)
uses = ("a", "b", "preflight")


def ids(group: str, identity: str, slot: int = 0) -> list[str]:
    name = worker_name(group, slot, {"PENSTOCK_IDENTITY": identity})
    return [transactional_id(group, name, use) for use in uses]


def test_groups_whose_names_run_into_identities_do_not_fence_each_other() -> None:
    assert worker_name("fraud", 0, {"PENSTOCK_IDENTITY": "eu-1"}) == worker_name(
        "fraud-eu", 0, {"PENSTOCK_IDENTITY": "1"}
    )
    assert not {*ids("fraud", "eu-1")} & {*ids("fraud-eu", "1")}


@given(one=st.tuples(parts, parts, st.integers(0, 12)), other=st.tuples(parts, parts, st.integers(0, 12)))
def test_an_id_is_of_one_worker_alone(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    if one != other:
        assert not {*ids(*one)} & {*ids(*other)}


def test_so_are_all_that_are_cut_from_one_text() -> None:
    text = "a-1-b-2-a"
    cuts = [place for place, sign in enumerate(text) if sign == "-"]
    found = [each for at in cuts for each in ids(text[:at], text[at + 1 :])]
    assert len({*found}) == len(found)
    assert len({*itertools.chain.from_iterable(ids("a", "b", slot) for slot in range(30))}) == 90


@given(group=parts, identity=parts)
def test_the_permissions_on_them_still_fit(group: str, identity: str) -> None:
    assert all(each.startswith(f"{group}-") for each in ids(group, identity))


def test_without_a_hyphen_in_the_identity_they_are_those_of_the_release_before() -> None:
    assert ids("fraud-eu", "host1", 3) == [
        "fraud-eu-host1-3-a",
        "fraud-eu-host1-3-b",
        "fraud-eu-host1-3-preflight",
    ]


@pytest.mark.parametrize(
    ("client_id", "ours"),
    [
        ("fraud-eu-1-0", True), ("fraud-host.example-12", True), ("fraud-consumer", False), ("consumer-fraud-1", False),
        ("rdkafka", False), ("fraud", False), ("fraud--0", False), ("frauds-host-0", False), ("", False),
    ],
)  # fmt: skip
def test_a_worker_is_told_from_another_program_by_its_client_id(client_id: str, ours: bool) -> None:
    kafka = KafkaSettings(bootstrap_servers="a:1", group="fraud")
    assert is_worker(client_id, kafka) is ours


def test_where_the_settings_give_the_client_id_that_one_is_a_workers() -> None:
    kafka = KafkaSettings(bootstrap_servers="a:1", group="fraud", client={"client.id": "scoring"})
    assert is_worker("scoring", kafka)
    assert not is_worker("rdkafka", kafka)
