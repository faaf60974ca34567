"""Wrong versions of the engine: the simulation finds every one of them."""

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor

import pytest
from penstock_bench.faults.bugs import Caught, catch, known
from penstock_bench.faults.runs import default_processes
from penstock_bench.faults.wrong.versions import Bug, planted

from penstock.schemas.errors import InvariantError

pytestmark = pytest.mark.slow


def caught(place: int) -> Caught:
    return catch(known[place])


@pytest.fixture(scope="module")
def found() -> Mapping[str, Future[Caught]]:
    """Every bug looked for, by as many processes as there are cores."""
    pool = ProcessPoolExecutor(default_processes(), mp_context=multiprocessing.get_context("spawn"))
    return {bug.name: pool.submit(caught, place) for place, bug in enumerate(known)}


@pytest.mark.parametrize("bug", known, ids=lambda bug: bug.name)
def test_the_bug_is_caught(bug: Bug, found: Mapping[str, Future[Caught]]) -> None:
    assert found[bug.name].result(600).finding is not None


def test_there_are_forty_and_no_two_alike() -> None:
    assert (
        len({bug.name for bug in known}) == len({(b.where, b.old, b.new) for b in known}) == len(known) >= 40
    )


def test_a_bug_that_changes_nothing_any_more_is_refused() -> None:
    gone = Bug(name="gone", where="Pipeline._group", old="this is not in the code", new="pass")
    with pytest.raises(InvariantError, match="0 times"), planted(gone):
        pass


def test_the_engine_is_right_again_afterwards() -> None:
    from penstock.engine.pipeline.pipeline import Pipeline

    before = Pipeline._group
    with planted(next(bug for bug in known if bug.where == "Pipeline._group")):
        assert Pipeline._group is not before
    assert Pipeline._group is before
