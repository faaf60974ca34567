"""The scaler through outages of its broker, from ten seconds to ten minutes: how long until it is ready again, with the same number."""

import http.client
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from penstock.connectors.embedded.cluster import free_ports
from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from tests.chaos.stops import Ended, tried_on_a_broker

ready_s_max: Final = 15.0
shortest_s: Final = 10.0
longest_s: Final = 600.0
_stale_s: Final = 20.0  # away for longer, it may not call itself ready any more
_patience_s: Final = 120.0


def lengths(count: int, chance: random.Random) -> list[float]:
    """Of so many outages, in seconds: one from each part of a logarithmic scale, in any order."""
    scale = math.log(longest_s / shortest_s)
    found = [shortest_s * math.exp(scale * (place + chance.random()) / count) for place in range(count)]
    chance.shuffle(found)
    return found


def outages(folder: Path, broker: EmbeddedKafka, count: int, seed: int) -> list[Ended]:
    """The broker killed, or standing still with its connections open: seconds from its first answer to others to the scaler's
    200 for /ready."""
    chance = random.Random(seed)
    servers, port = broker.bootstrap_servers, free_ports(1)[0]
    KafkaAdmin(ClientConfig(bootstrap_servers=servers), timeout_s=30.0).create_topics({"in": 4})
    producer = Producer({"bootstrap.servers": servers, "log_level": 0})
    producer.produce("in", value=b"x", partition=0)
    assert producer.flush(30) == 0
    settings = folder / "penstock.yaml"
    settings.write_text(
        yaml.safe_dump(
            {
                "kafka": {"bootstrap_servers": servers, "group": "g"}, "input": {"topic": "in"},
                "output": {"predictions": "p", "dead_letters": "d"}, "model": {"path": "unused"},
                "http": {"port": port}, "scaling": {"port": 0, "max_replicas": 5},
            }
        )
    )  # fmt: skip
    log = (folder / "scaler.log").open("wb")
    scaler = subprocess.Popen(
        [sys.executable, "-P", "-m", "penstock", "scaler", str(settings)], stdout=log, stderr=log
    )
    ends: list[Ended] = []
    try:
        assert _until(lambda: _status(port, "/ready") == 200, _patience_s) is not None, "never ready"
        for turn, away_s in enumerate(lengths(count, chance)):
            before, killed = _told(port), chance.random() < 0.5
            name = f"outage {turn + 1}, {'killed' if killed else 'standing still'} for {away_s:.0f} s"
            wrong = _away(broker, port, away_s, killed=killed)
            assert _until(lambda: _answers(servers), _patience_s) is not None, "the broker is not back"
            took_s = _until(lambda: _status(port, "/ready") == 200, _patience_s)
            if took_s is None:
                wrong, took_s = [*wrong, f"not ready after {_patience_s:g} s"], _patience_s
            elif took_s > ready_s_max:
                wrong.append(f"ready after {took_s:.1f} s")
            elif (now := _told(port)) != before:
                wrong.append(f"the number was {before}, and is {now}")
            print(f"{name}: {took_s:.1f} s", flush=True)
            ends.append(Ended(took_s=took_s, wrong=f"{name}: {'; '.join(wrong)}" if wrong else ""))
    finally:
        scaler.terminate()
        scaler.wait(30)
        log.close()
        if any(each.wrong for each in ends):
            print((folder / "scaler.log").read_text(errors="replace")[-4000:], flush=True)
    return ends


def _away(broker: EmbeddedKafka, port: int, away_s: float, *, killed: bool) -> list[str]:
    """Take the broker away for so long; what the scaler did wrong meanwhile."""
    wrong = []
    (broker.kill_node if killed else broker.pause_node)(1)
    begin_s = time.monotonic()
    while (gone_s := time.monotonic() - begin_s) < away_s:
        if _status(port, "/live") != 200:
            wrong.append(f"not live {gone_s:.0f} s into the outage")
            break
        if gone_s > _stale_s and _status(port, "/ready") == 200:
            wrong.append(f"ready {gone_s:.0f} s into the outage")
            break
        time.sleep(min(1.0, away_s / 10))
    time.sleep(max(away_s - (time.monotonic() - begin_s), 0.0))
    (broker.start_node if killed else broker.resume_node)(1)
    return wrong


def _until(met: Callable[[], bool], patience_s: float) -> float | None:
    """Seconds it took; None when time was up."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < patience_s:
        if met():
            return time.monotonic() - began_s
        time.sleep(0.1)
    return None


def _answers(servers: str) -> bool:
    """Whether the broker answers a client that was not there in the outage."""
    try:
        AdminClient({"bootstrap.servers": servers, "log_level": 0}).list_topics(timeout=2.0)
    except KafkaException:
        return False
    return True


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def _status(port: int, path: str) -> int:
    return _get(port, path)[0]


def _told(port: int) -> Any:
    return json.loads(_get(port, "/replicas")[1])


def main(argv: Sequence[str]) -> int:
    """0 when it was ready in time after every one."""
    return tried_on_a_broker(argv, outages, f"ready within {ready_s_max:g} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
