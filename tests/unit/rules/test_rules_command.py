"""`penstock rules`: what is written, for whom, and that each text leads somewhere."""

import argparse
import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from penstock.engine.cli.main import main, whole_parser
from penstock.engine.rules.alert import Terms
from penstock.engine.rules.alerts import alerts
from penstock.engine.rules.files import dashboard_files, rules
from penstock.engine.rules.selectors import narrowed, parse_labels
from penstock.engine.settings.model import AlertSettings
from penstock.schemas.errors import ConfigError

promtool = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(promtool is None, reason="promtool is not at hand")
terms = Terms(max_age_s="30", age_target="0.99", complete_target="0.99", runbook="docs/runbook.md")
alone = Terms(max_age_s="30", age_target="0.99", complete_target="0.99", runbook="https://x/r", scaler=False)


@functools.cache
def parser() -> argparse.ArgumentParser:
    return whole_parser()


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "penstock.yaml"
    tree = {
        "kafka": {"bootstrap_servers": "localhost:9092", "group": "g"},
        "input": {"topic": "in", "format": "json"},
        "output": {"predictions": "out", "dead_letters": "dead"},
        "model": {"path": "m"},
        "scaling": {"max_age_s": 7.5},
        "alerts": {
            "age_target": 0.999,
            "runbook_url": "https://wiki.example/runbook",
            "pages_url": "https://ml.example/flights",
        },
    }
    path.write_text(yaml.safe_dump(tree))
    return path


def every_rule(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [rule for group in found["groups"] for rule in group["rules"]]


def test_the_objective_of_the_settings_is_what_the_rules_compare_with(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rules", str(settings)]) == 0
    found = every_rule(yaml.safe_load(capsys.readouterr().out))
    by_name = {rule.get("alert") or rule["record"]: rule for rule in found}
    assert by_name["penstock:age_over:bool"]["expr"].endswith("> bool 7.5")
    assert "14.4 * (1 - 0.999)" in by_name["PenstockAgeBurnsFast"]["expr"]
    assert by_name["PenstockRecordsTooOld"]["expr"].endswith("> 2 * 7.5")
    assert (
        by_name["PenstockFenced"]["annotations"]["runbook_url"]
        == "https://wiki.example/runbook#penstockfenced"
    )


def test_alerts_on_late_and_bad_records_lead_to_the_engine_s_own_hints(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rules", str(settings)]) == 0
    said = {
        rule["alert"]: rule["annotations"].get("hints")
        for rule in every_rule(yaml.safe_load(capsys.readouterr().out))
        if "alert" in rule
    }
    hinted = {name for name, where in said.items() if where is not None}
    assert {said[name] for name in hinted} == {"https://ml.example/flights/api/v1/hints"}
    assert hinted >= {
        "PenstockAgeBurnsFast",
        "PenstockRecordsTooOld",
        "PenstockPoison",
        "PenstockTransactionOpen",
    }
    assert not hinted & {"PenstockWorkersAbsent", "PenstockPodDown", "PenstockFenced"}, (
        "there nobody would answer"
    )
    of_any = {each.name: each.as_rule(terms)["annotations"].get("hints") for each in alerts(terms)}
    assert {name: "/api/v1/hints" if name in hinted else None for name in of_any} == of_any


@pytest.mark.parametrize(
    "url",
    ["https://x/", "x", "https://x?a", "https://a b", "https://it's", "https://{{x}}", "https://me:word@x"],
)
def test_an_address_of_the_pages_that_would_break_an_alert_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        AlertSettings(pages_url=url)


def test_the_files_are_written_and_named(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "monitoring" / "of-one"
    assert main(["rules", str(settings), "--out", str(out), "--select", "release=fraud", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert sorted(path.name for path in out.iterdir()) == sorted(Path(each).name for each in written)
    assert {path.name for path in out.iterdir()} == {
        "penstock-rules.yaml",
        "penstock.json",
        "penstock-objective.json",
    }
    for rule in every_rule(yaml.safe_load((out / "penstock-rules.yaml").read_text())):
        assert rule["expr"].count('release="fraud"') >= 1


@pytest.mark.parametrize("pair", ["release", "=a", "re-lease=a", "release=", "release=a\nb"])
def test_a_wrong_label_is_one_sentence(pair: str, settings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", str(settings), "--select", pair]) == 2
    error = capsys.readouterr().err
    assert error.startswith("penstock rules: --select ")
    assert "LABEL=VALUE" in error
    assert error.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_one_sentence(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rules", str(settings), "--out", str(settings)]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_label_named_twice_is_refused() -> None:
    assert parse_labels(["a=1", "a=1"]) == {"a": "1"}
    with pytest.raises(ConfigError, match="twice"):
        parse_labels(["a=1", "a=2"])


def test_narrowing_reaches_every_series_and_nothing_else() -> None:
    expression = (
        'sum by (release) (rate(penstock_a_total{x="y"}[5m])) > group(penstock:b:ratio_5m) or absent(up)'
    )
    assert narrowed(expression, 'release="a"') == (
        'sum by (release) (rate(penstock_a_total{release="a", x="y"}[5m])) '
        '> group(penstock:b:ratio_5m{release="a"}) or absent(up{release="a"})'
    )


def test_without_a_scaler_nothing_asks_for_one() -> None:
    for rule in every_rule(rules(alone)):
        assert "penstock_scaling" not in rule["expr"]
        assert "penstock_group_lag" not in rule["expr"]
        assert "penstock_required" not in rule["expr"]
    for text in dashboard_files(alone).values():
        assert "penstock_scaling" not in text
        assert "penstock_group" not in text


@pytest.mark.parametrize("alert", alerts(terms), ids=lambda alert: alert.name)
def test_an_alert_says_what_why_and_what_to_type(alert: Any) -> None:
    assert alert.summary.endswith(".")
    assert alert.cause.endswith(".")
    assert len(alert.cause) > 30
    program, *words = re.sub(r"\{\{.*?\}\}", "unreadable", alert.command).split()
    assert program == "penstock"
    parsed = parser().parse_args(words)  # SystemExit when there is no such command or option
    assert isinstance(parsed, argparse.Namespace)


@needs_promtool
@pytest.mark.parametrize("of", [terms, alone], ids=["with-scaler", "without-scaler"])
def test_prometheus_reads_every_rule_and_every_panel(of: Terms, tmp_path: Path) -> None:
    assert promtool is not None
    panels = []
    for text in dashboard_files(of).values():
        for panel in json.loads(text)["panels"]:
            for number, target in enumerate(panel.get("targets", ())):
                query = target["expr"].replace("$__rate_interval", "1m")
                panels.append({"record": f"panel:{panel['id']}:{number}", "expr": query})
    assert len(panels) > 30
    found = rules(of)
    found["groups"].append({"name": "panels", "rules": panels})
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(found))
    checked = subprocess.run(
        [promtool, "check", "rules", "--lint=none", str(tmp_path / "rules.yaml")], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("of", [terms, alone], ids=["with-scaler", "without-scaler"])
def test_both_sides_of_an_and_or_an_unless_carry_the_same_labels(of: Terms) -> None:
    """Else the rule is read without complaint and never fires."""
    recorded = {
        rule["record"]: "namespace, release, group" for rule in every_rule(rules(of)) if "record" in rule
    }

    def labels(side: str) -> str:
        side = side.strip().strip("(")
        aggregated = re.match(r"(?:max|min|sum|group|count) by \(([^)]*)\)", side)
        if aggregated:
            return aggregated[1]
        return recorded[re.match(r"[\w:]+", side)[0]]  # type: ignore[index]

    checked = 0
    for alert in alerts(of):
        for left, right in zip(
            re.split(r" and ", alert.expr), re.split(r" and ", alert.expr)[1:], strict=False
        ):
            left = re.split(r" or ", left)[-1]
            assert labels(left) == labels(re.split(r" or ", right)[0]), alert.name
            checked += 1
        for part in re.findall(r"unless (\w*)", alert.expr):
            assert part == "on", f"{alert.name}: unless without saying on what"
    assert checked >= 9
