"""The section `tracing`: what is wrong with it is one sentence, and said before the first poll."""

from pathlib import Path
from typing import Any

import pytest

from penstock.engine.settings.model import parse_settings
from penstock.engine.settings.tracing import TracingSettings
from penstock.engine.worker.startup.tracing import require_tracing
from penstock.schemas.errors import ConfigError


@pytest.mark.parametrize(
    ("tracing", "refused"),
    [
        ({}, "endpoint"), ({"endpoint": "collector:4318"}, "http or https"),
        ({"endpoint": "http://me:word@host/v1/traces"}, "name and a password"),
        ({"endpoint": "http://host", "one_in": -1}, "one_in"), ({"endpoint": "http://host", "timeout_s": 0}, "timeout_s"),
    ],
)  # fmt: skip
def test_a_wrong_section_is_refused_by_its_key(tracing: dict[str, Any], refused: str, tmp_path: Path) -> None:
    tree = {
        "kafka": {"bootstrap_servers": "memory", "group": "g"},
        "input": {"topic": "in"},
        "output": {"predictions": "out", "dead_letters": "dead"},
        "model": {"path": "bundle"},
        "tracing": tracing,
    }
    with pytest.raises(ConfigError, match=f"tracing.*{refused}"):
        parse_settings(tree, origin="test", folder=tmp_path)


def test_without_the_extra_the_start_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TracingSettings(endpoint="http://127.0.0.1:4318/v1/traces")
    assert "one batch in 100" in require_tracing(settings)
    monkeypatch.setattr("penstock.engine.worker.startup.tracing.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"not installed: pip install '.*\[traces\]'"):
        require_tracing(settings)


def test_files_of_the_section_are_read_at_the_start(tmp_path: Path) -> None:
    endpoint = "https://127.0.0.1:4318/v1/traces"
    (tmp_path / "empty").write_text("")
    (tmp_path / "lines").write_text("a\nb\n")
    for keys, refused in (
        ({"token_file": tmp_path / "none"}, "token_file: cannot read the secret"),
        ({"token_file": tmp_path / "empty"}, "token_file: .* is empty"),
        ({"token_file": tmp_path / "lines"}, "token_file: .* one line"),
        ({"ca_file": tmp_path / "none"}, "ca_file"),
        ({"ca_file": tmp_path / "empty"}, "ca_file"),
    ):
        with pytest.raises(ConfigError, match=refused):
            require_tracing(TracingSettings(endpoint=endpoint, **keys))
