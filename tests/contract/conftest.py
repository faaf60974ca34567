"""The brokers that the contract suite judges."""

from collections.abc import Iterator

import pytest

from tests.contract.bench import Bench, KafkaBench, MemoryBench, SimulatedBench


@pytest.fixture(
    params=[
        "memory",
        "simulated",
        pytest.param("kafka-classic", marks=pytest.mark.kafka),
        pytest.param("kafka-consumer", marks=pytest.mark.kafka),
    ]
)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """One broker of each kind, the simulated clients of the real one, and the two group protocols of the real one."""
    made: Bench
    if request.param == "memory":
        made = MemoryBench()
    elif request.param == "simulated":
        made = SimulatedBench()
    else:
        made = KafkaBench(request.getfixturevalue("kafka"), request.param.removeprefix("kafka-"))
    yield made
    made.release()
