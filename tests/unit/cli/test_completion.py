"""What the shells complete, asked of the shells themselves."""

import shutil
import subprocess

import pytest

import penstock
from penstock.engine.cli.completion import levels, script, shells
from penstock.engine.cli.main import commands, main, whole_parser


def _complete(line: str) -> set[str]:
    """What bash offers at the end of `line`."""
    words = line.split(" ")
    program = f"""
{script("bash", whole_parser())}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
COMP_CWORD={len(words) - 1}
_penstock
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, timeout=20, check=True, cwd="/"
    )
    return set(done.stdout.split())


def test_bash_offers_the_commands() -> None:
    assert set(commands) <= _complete("penstock ")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("penstock l", {"lag"}),
        ("penstock dlq ", {"list", "show", "replay"}),
        ("penstock dlq replay --dry", {"--dry-run"}),
        ("penstock broker --n", {"--nodes"}),
        ("penstock init --format ", {"avro", "json"}),
        ("penstock completion --h", {"--help"}),
    ],
)
def test_bash_offers_what_may_follow(line: str, offered: set[str]) -> None:
    found = _complete(line)
    assert offered <= found
    assert "run" not in found or line.endswith(" ")


@pytest.mark.parametrize("shell", shells)
def test_every_script_is_read_by_its_shell(shell: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = script(shell, whole_parser())
    for level in levels(whole_parser()):
        for name, _ in level.subcommands:
            assert name in text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path_factory.mktemp("completion") / "script"
    file.write_text(text)
    done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"penstock {penstock.__version__}\n"


def test_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "lag"]) == 0
    assert "usage: penstock lag" in capsys.readouterr().out
