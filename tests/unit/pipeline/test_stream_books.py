"""The books of the chaos tests can be wrong in every way they claim to notice."""

from dataclasses import replace

import pytest

from tests.stream import Books, Seen

inputs = {(0, 0): b"k", (0, 1): b"k", (1, 0): b"m"}


def books(*predictions: tuple[int, int], partition: int = 0) -> Books:
    seen = [Seen(place=place, key=inputs.get(place, b"?"), body={}) for place in predictions]
    by_partition = {0: [s for s in seen if s.place[0] == 0], 1: [s for s in seen if s.place[0] == 1]}
    return Books(inputs=dict(inputs), predictions=by_partition, explanations=by_partition, letters={})


def test_every_record_once_and_in_order_is_right() -> None:
    assert books((0, 0), (0, 1), (1, 0)).check() == []


@pytest.mark.parametrize(
    ("places", "fault"),
    [
        ([(0, 0), (1, 0)], "(0, 1) is lost"),
        ([(0, 0), (0, 1), (0, 1), (1, 0)], "(0, 1) has 2 outcomes"),
        ([(0, 1), (0, 0), (1, 0)], "predictions: (0, 0) comes behind (0, 1)"),
        ([(0, 0), (0, 1), (1, 0), (1, 7)], "(1, 7) was never an input"),
    ],
)
def test_a_record_lost_repeated_swapped_or_made_up_is_found(
    places: list[tuple[int, int]], fault: str
) -> None:
    assert fault in books(*places).check()


def test_a_missing_explanation_is_found() -> None:
    whole = books((0, 0), (0, 1), (1, 0))
    assert "(0, 1) is not explained" in replace(whole, explanations=books((0, 0), (1, 0)).predictions).check()


def test_another_key_and_another_partition_are_found() -> None:
    whole = books((0, 0), (0, 1), (1, 0))
    stray = Seen(place=(0, 1), key=b"k", body={})
    apart = {**whole.predictions, 0: whole.predictions[0][:1], 2: [stray]}
    assert "predictions of key b'k' are in two partitions" in replace(whole, predictions=apart).check()
    renamed = {**whole.predictions, 1: [replace(whole.predictions[1][0], key=b"x")]}
    assert "(1, 0) came out with another key" in replace(whole, predictions=renamed).check()
