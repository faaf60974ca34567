"""`penstock check`: every fault at once, each in a sentence, before a worker would find it."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.connectors.embedded.secured import SecureFolder
from penstock.engine.cli.main import main
from penstock.engine.clock import SystemClock
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.run_options import NativeProof, Runtime
from penstock.engine.settings.model import load_settings
from penstock.engine.settings.topics import RegistrySettings
from penstock.engine.worker.preflight import Findings, Preflight
from penstock.engine.worker.startup import worker as worker_start
from tests.bundles import write_stump
from tests.registry_server import registry_server

schema = {
    "type": "record",
    "name": "Input",
    "fields": [{"name": name, "type": "double"} for name in ("a", "b", "c")],
}


def _settings(tmp_path: Path, **model: Any) -> Path:
    settings = {
        "kafka": {"bootstrap_servers": "localhost:1", "group": "preflight"},
        "input": {"topic": "in"},
        "output": {"predictions": "out", "explanations": "why", "dead_letters": "dead"},
        "model": {"path": "bundle", "device": "cpu", **model},
        "objective": {"batch_rows_max": 256},
        "http": {"port": 0},
    }
    path = tmp_path / "penstock.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def _bundle(tmp_path: Path, fields: list[dict[str, Any]] | None = None, **changes: Any) -> None:
    record = {**schema, "fields": schema["fields"] if fields is None else fields}
    write_stump(tmp_path / "bundle", input_schema=json.dumps(record).encode(), **changes)


def test_a_good_worker_passes_and_shows_its_warm_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _bundle(tmp_path)
    assert main(["check", str(_settings(tmp_path)), "--no-kafka", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    assert found["faults"] == []
    assert found["device"] == "cpu"
    assert [timing["rows"] for timing in found["warmup"]] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert all(timing["ms"] > 0 for timing in found["warmup"])
    assert found["first_batch"]["rows"] == found["rehearsal"]["batch_rows_max"] == 256
    assert [cost["rows"] for cost in found["rehearsal"]["costs"]] == [1, 4, 16, 64, 256]
    assert found["checks"]["rehearsal"].startswith("batches of up to 256 records take")
    assert set(found["checks"]) == {
        "settings",
        "files",
        "bundle",
        "model",
        "runtime",
        "input",
        "explanations",
        "rehearsal",
        "memory",
    }


def test_the_table_is_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _bundle(tmp_path)
    assert main(["check", str(_settings(tmp_path)), "--no-kafka"]) == 0
    shown = capsys.readouterr().out
    assert "warm-up" in shown
    assert "The first batch after start, 256 records, takes" in shown


def test_every_fault_is_listed_and_not_the_first_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _bundle(tmp_path, fields=[{"name": "a", "type": "double"}], cover=False)
    assert main(["check", str(_settings(tmp_path)), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    faults = {item["check"]: item["fault"] for item in found["faults"]}
    assert set(faults) == {"input", "explanations", "kafka"}
    assert "field b is missing" in faults["input"]
    assert "field c is missing" in faults["input"]
    assert "localhost:1" in faults["kafka"]
    assert not found["ok"]


def test_a_bundle_that_is_not_there_is_one_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(_settings(tmp_path)), "--no-kafka", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert [item["check"] for item in found["faults"]] == ["files"]


def test_the_runtime_in_force_and_its_proof_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _bundle(tmp_path)
    proof = Runtime(native=NativeProof(equal=True, reason="", rows=41, tests=1, tests_hit=1))
    bundle = Bundle.load(tmp_path / "bundle")
    for manifest, runtime, named in (
        (bundle.manifest, "auto", "onnxruntime: it was not tried"),
        (bundle.manifest, "native", "native: model.runtime asks for it; equal here and now"),
        (replace(bundle.manifest, runtime=proof), "native", "native: model.runtime asks for it; equal to ONNX Runtime on 41"),
    ):  # fmt: skip
        Bundle.write(tmp_path / "bundle", manifest=manifest, model=bundle.model, golden=bundle.golden)
        settings = _settings(tmp_path, runtime=runtime)
        assert (
            main(["check", str(settings), "--no-kafka", "--json"]) == 2
        )  # the schema went with the rewriting
        found = json.loads(capsys.readouterr().out)
        assert found["checks"]["runtime"].startswith(named)
        assert found["runtime"]["name"] == named.partition(":")[0]
        assert found["runtime"]["packaged"] == manifest.runtime.to_json()
    Bundle.write(
        tmp_path / "bundle",
        manifest=replace(bundle.manifest, runtime=proof),
        model=bundle.model,
        golden=bundle.golden,
    )
    main(["check", str(_settings(tmp_path)), "--no-kafka"])
    assert "runtimes compared" in capsys.readouterr().out


def test_settings_that_cannot_be_read_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(tmp_path / "nowhere.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.kafka
def test_topics_and_permissions_are_proved_on_a_real_broker(
    kafka: str, new_topic: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _bundle(tmp_path)
    path = _settings(tmp_path)
    settings = yaml.safe_load(path.read_text())
    settings["kafka"]["bootstrap_servers"] = kafka
    settings["input"]["topic"] = new_topic("in", partitions=3)
    settings["output"] = {name: new_topic(name) for name in ("predictions", "explanations")}
    settings["output"]["dead_letters"] = "nobody-made-this"
    path.write_text(yaml.safe_dump(settings))
    assert main(["check", str(path), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert [item["check"] for item in found["faults"]] == ["kafka"]
    assert "topic nobody-made-this does not exist" in found["faults"][0]["fault"]
    settings["output"]["dead_letters"] = new_topic("dead")
    path.write_text(yaml.safe_dump(settings))
    assert main(["check", str(path), "--json"]) == 0
    assert "has 3 partitions" in json.loads(capsys.readouterr().out)["checks"]["kafka"]


def test_a_model_that_does_not_get_warm_is_a_fault_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it ends a worker; whatever hangs there is left behind."""
    _bundle(tmp_path)
    released = threading.Event()
    monkeypatch.setattr(worker_start, "open_model", lambda *_, **__: released.wait(60))
    began_s = time.monotonic()
    assert main(["check", str(_settings(tmp_path, warmup_s_max=0.3)), "--no-kafka", "--json"]) == 2
    released.set()
    assert time.monotonic() - began_s < 10
    found = json.loads(capsys.readouterr().out)
    assert list(found["checks"]) == ["settings", "files", "bundle"]
    (fault,) = found["faults"]
    assert fault["check"] == "model"
    assert "model.warmup_s_max" in fault["fault"]


def test_files_of_the_ports_are_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The scaler and the admin port find them out only when they start."""
    secure = SecureFolder(tmp_path / "secure")
    secure.make()
    secure.issue("late", common_name="scaler", valid_days=-1)
    folder = secure.folder
    path = _settings(tmp_path)
    before = yaml.safe_load(path.read_text())

    def check(**sections: dict[str, object]) -> dict[str, str]:
        path.write_text(yaml.safe_dump(before | sections))
        main(["check", str(path), "--no-kafka", "--json"])
        found = json.loads(capsys.readouterr().out)
        return {each["check"]: each["fault"] for each in found["faults"]} | {
            "ok " + name: text for name, text in found["checks"].items()
        }

    def pair(stem: str, key: str | None = None) -> dict[str, object]:
        return {
            "certificate_file": str(folder / f"{stem}.pem"),
            "key_file": str(folder / f"{key or stem}.key"),
        }

    assert "TLS; the certificate is valid until 20" in check(scaling=pair("scaler"))["ok scaler"]
    assert "is not the key of" in check(scaling=pair("scaler", "worker"))["scaler"]
    assert "cannot read" in check(scaling=pair("absent"))["scaler"]
    assert "has expired on 20" in check(scaling=pair("late"))["scaler"]
    (folder / "token").write_text("short")
    audited: dict[str, object] = {"audit_topic": "audit"}
    assert check(admin=audited)["ok admin"].startswith("anyone on this machine may act on 127.0.0.1")
    tokens = {"tokens": [{"name": "ops", "role": "admin", "file": str(folder / "token")}]}
    assert "has 5 characters; it needs 32" in check(admin=audited | tokens)["admin"]
    assert (
        "cannot read the audit's key"
        in check(admin=audited | {"audit_key_file": str(folder / "absent")})["admin"]
    )
    mutual = {"client_ca_file": str(folder / "ca.pem"), "certificates": {"worker": "viewer"}}
    assert "1 client certificates may act" in check(admin=audited | pair("broker") | mutual)["ok admin"]
    assert "key values mismatch" in check(admin=audited | pair("broker", "worker") | mutual)["admin"]


def test_a_registry_that_refuses_our_contracts_is_a_fault_of_the_check_as_of_the_start(
    tmp_path: Path,
) -> None:
    _bundle(tmp_path)
    with registry_server() as server:
        settings = load_settings(_settings(tmp_path))
        settings = settings.model_copy(update={"registry": RegistrySettings(url=server.url)})
        findings = Findings()
        Preflight(settings, SystemClock(), findings).registry()
        assert findings.faults == []
        server.publish("why-value", {"type": "record", "name": "Other", "fields": []})
        server.refuses_changes = True
        Preflight(settings, SystemClock(), findings).registry()
        ((check, fault),) = findings.faults
        assert check == "registry"
        assert "not compatible with what is registered under why-value" in fault
        server.fault = "401"
        Preflight(settings, SystemClock(), findings).registry()
        assert len(findings.faults) == 2


def test_a_password_that_is_sent_unencrypted_is_a_note_and_no_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _bundle(tmp_path)
    file = _settings(tmp_path)
    tree = yaml.safe_load(file.read_text())
    tree["registry"] = {"url": "http://registry.bank:8081", "username": "u", "password": "s3cret"}
    file.write_text(yaml.safe_dump(tree))
    assert main(["check", str(file), "--no-kafka", "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert note["check"] == "unencrypted"
    assert "registry.bank" in note["note"]
    assert main(["check", str(file), "--no-kafka"]) == 0
    shown = capsys.readouterr().out
    assert "note   unencrypted" in shown
    assert "s3cret" not in shown
