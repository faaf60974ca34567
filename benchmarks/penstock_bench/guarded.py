"""`penstock bench pipeline --guarded`: the stream with everything that guards it on beside two starts of the same stream without, taking
turns of half a second. The second start of the plain one is the control: it says how far apart two starts of one stream are."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations
from statistics import median
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rich.table import Table

from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from penstock.engine.clock import Clock
from penstock.engine.console.terminal import Terminal
from penstock.engine.models.bundle.bundle import Bundle
from penstock.schemas.errors import ConfigError
from penstock_bench.peers.contestants import Entry, chosen, penstock
from penstock_bench.peers.environment import open_environment
from penstock_bench.peers.statistics import ratios_told, verdict
from penstock_bench.peers.throughput import Run, measure_throughput
from penstock_bench.slices import measure_in_slices

turns_max: Final = 100
warm_up_records: Final = 40_000
bar: Final = 0.01
"""What guarding may cost of the records a second."""
verdicts: Final = {
    "within": "within",
    "beyond": "not within",
    "undecided": "more turns are needed to say whether it is within",
}


def measure(*, turns: int, records: int, seed: int, terminal: Terminal, clock: Clock) -> dict[str, Any]:
    """The three in slices of half a second each, so many times, the order changing each time; shows the table, and returns all of it. Raises ConfigError, NotReadyError."""
    if not 1 <= turns <= turns_max:
        raise ConfigError(f"--guarded is from 1 to {turns_max} turns")
    plain = chosen("penstock")[0]
    three = {
        "plain": plain,
        "plain again": replace(plain, slug="penstock-again"),
        "guarded": replace(plain, slug="penstock-guarded", start=lambda entry, _: guarded(entry)),
    }
    runs: dict[str, list[Run]] = {name: [] for name in three}
    orders = list(permutations(three))
    with open_environment(terminal, clock) as environment:
        terminal.say("a first run that counts for nobody, so that the broker is warm ...")
        measure_throughput(environment, plain, records=min(warm_up_records, records), seed=seed)
        for turn in range(turns):
            order = {name: three[name] for name in orders[turn % len(orders)]}
            for name, run in measure_in_slices(environment, order, records=records, seed=seed).items():
                runs[name].append(run)
    found = compared(runs, seed=seed)
    show(found, terminal)
    return found


def compared(runs: Mapping[str, list[Run]], *, seed: int) -> dict[str, Any]:
    """Of each turn what the guarded one did for each that the two plain ones did (their geometric mean), and what the second plain one
    did for each of the first; the middle turn, the lowest and the highest, the geometric mean, and between what it lies with
    a probability of 95 %."""
    turns = list(zip(runs["plain"], runs["plain again"], runs["guarded"], strict=True))
    ours, control = {}, {}
    for name in ("records_per_s", "engine_us_per_record"):
        each = [tuple(getattr(run, name) for run in turn) for turn in turns]
        ours[name] = ratios_told([on / math.sqrt(one * other) for one, other, on in each], seed=seed)
        control[name] = ratios_told([other / one for one, other, _ in each], seed=seed)
    supervisor = {
        name: median(run.first_process_ms_per_s for run in each if run.first_process_ms_per_s is not None)
        for name, each in runs.items()
        if any(run.first_process_ms_per_s is not None for run in each)
    }
    whole = all(run.lost == 0 and run.duplicated == 0 for each in runs.values() for run in each)
    return {
        "turns": [{name: runs[name][turn].as_json() for name in runs} for turn in range(len(turns))],
        "guarded_for_plain": ours,
        "plain_again_for_plain": control,
        "supervisor_ms_per_s": {name: round(each, 2) for name, each in supervisor.items()},
        "whole": whole,
        "verdict": verdict(ours["records_per_s"], bar=bar) if whole else "beyond",
    }


def guarded(entry: Entry) -> list[str]:
    """The command of a stream with a signed and pinned bundle, an admin port that asks for tokens, and an audit with a key."""
    folder, audit = entry.folder, f"{entry.group}-audit"
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (folder / "key.pub").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    for name in ("token", "audit-key"):
        (folder / name).write_text(name[0] * 64)
    shutil.copytree(entry.workload.bundle, folder / "bundle")
    Bundle.sign(folder / "bundle", key=folder / "key.pem")
    KafkaAdmin(ClientConfig(bootstrap_servers=entry.servers), timeout_s=30.0).create_topics({audit: 1})
    return penstock(
        entry,
        model={
            "path": str(folder / "bundle"),
            "digest": Bundle.load(folder / "bundle").digest,
            "trust": {"keys": [str(folder / "key.pub")], "policy": "enforce"},
        },
        admin={
            "port": 0,
            "audit_topic": audit,
            "audit_key_file": str(folder / "audit-key"),
            "tokens": [{"name": "bench", "role": "admin", "file": str(folder / "token")}],
        },
    )


def show(found: Mapping[str, Any], terminal: Terminal) -> None:
    """The turns, and what guarding costs."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for index, name in enumerate(("turn", "", "records/s", "CPU us", "lost/twice")):
        table.add_column(name, justify="left" if index < 2 else "right", no_wrap=True)
    for number, turn in enumerate(found["turns"], 1):
        for name, run in turn.items():
            table.add_row(
                str(number),
                name,
                f"{run['records_per_s']:,.0f}",
                f"{run['engine_us_per_record']:.3f}",
                f"{run.get('lost', '?')}/{run.get('duplicated', '?')}",
            )
    terminal.say(table)
    for key, title in (
        ("guarded_for_plain", "guarded for plain"),
        ("plain_again_for_plain", "plain again for plain"),
    ):
        for name, words in (("records_per_s", "records a second"), ("engine_us_per_record", "CPU a record")):
            each = found[key][name]
            terminal.say(
                f"{title}, {words}: {each['mean']:.3f} on average, {each['low']:.3f} to {each['high']:.3f} with 95 % "
                f"(turns from {each['min']:.3f} to {each['max']:.3f}, {each['median']:.3f} in the middle)"
            )
    of_supervisors = found["supervisor_ms_per_s"]
    if of_supervisors:
        told = ", ".join(f"{name} {each:.1f} ms" for name, each in of_supervisors.items())
        terminal.say(f"CPU of the supervisor in a second, in the middle turn: {told}")
    terminal.say(
        f"{verdicts[found['verdict']]} {bar:.0%} in records a second; "
        + ("every record once" if found["whole"] else "records are missing or came twice")
    )
