"""A batch of a few hundred kilobytes that unpacks to 200 MB: one letter, its neighbours predicted, and memory for one such batch."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from penstock.connectors.embedded.kafka import EmbeddedKafka
from tests.integration.test_poison import good, write_bundle
from tests.integration.test_unreadable_stream import outcomes
from tests.stream import Stream, children

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(240)]
bomb_bytes = 200_000_000
plain_max = 250_000_000
"""What a worker of this model needs with librdkafka's buffers and Python, with much to spare: about 120 MB were measured."""
codecs = {
    "gzip": "record_too_long",  # unpacked, and found to be longer than input.value_bytes_max
    "zstd": "unreadable",  # more than receive.message.max.bytes: the client does not unpack it
}


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


@pytest.mark.parametrize("codec", list(codecs) if os.environ.get("PENSTOCK_BOMBS") else ["gzip"])
def test_a_bomb_is_a_letter_and_costs_the_memory_of_one_batch(
    start_kafka: Callable[..., EmbeddedKafka], tmp_path: Path, codec: str
) -> None:
    broker = start_kafka()
    write_bundle(tmp_path / "model")
    name = f"bomb-{time.time_ns()}"
    stream = Stream(
        tmp_path, broker.bootstrap_servers, name, tmp_path / "model", explained=False,
        input={"unreadable": "set_aside"},
    )  # fmt: skip
    try:
        producer = Producer({
            "bootstrap.servers": broker.bootstrap_servers, "message.max.bytes": 300_000_000, "compression.type": codec,
            "message.timeout.ms": 120_000,
        })  # fmt: skip
        failed: list[str] = []

        def told(error: object, message: object) -> None:
            if error is not None:
                failed.append(str(error))

        for number in range(40):
            if number == 20:
                producer.flush(60)
                producer.produce(name, bytes(bomb_bytes), key=b"bomb", partition=0, on_delivery=told)
                assert producer.flush(120) == 0
            producer.produce(name, good(number), key=b"%d" % number, partition=0, on_delivery=told)
        assert producer.flush(60) == 0
        assert not failed
        worker = stream.start("w")
        stream.expected = 41
        stream.wait(1.0, 90.0)
        (pid,) = children(worker)
        peak = peak_bytes(pid)
        print(f"{codec}: the worker took {peak / 1e6:.0f} MB at most")
        predicted = [seen.key for seen in outcomes(stream, "predictions")]
        assert sorted(predicted, key=lambda key: int(key or b"-1")) == [
            b"%d" % number for number in range(40)
        ]
        (letter,) = outcomes(stream, "dead_letters")
        assert letter.body["reason"] == codecs[codec]
        assert peak < plain_max + 2 * bomb_bytes
        assert worker.poll() is None
        assert len(children(worker)) == 1
    finally:
        stream.close()
