"""Records that are nearly right crash nothing, hang nothing, and leave no memory behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

mutants = int(os.environ.get("PENSTOCK_MUTANTS", "100000"))
seed = os.environ.get("PENSTOCK_SEED", "1")


def test_mutants_of_sixty_schemas_and_of_json_are_rows_or_rejections() -> None:
    """A process of its own: a crash is seen, and memory is its alone. PENSTOCK_MUTANTS and PENSTOCK_SEED for longer runs."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.mutants", "--mutants", str(mutants), "--seed", seed],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60 + mutants / 500,
        check=False,
    )
    assert run.returncode == 0, (run.returncode, run.stdout, run.stderr[-3000:])
    report = json.loads(run.stdout)
    assert report["mutants"] > 0.99 * mutants
    assert report["schemas"] >= 50
    outcomes = report["outcomes"]
    assert {
        "read",
        "corrupt",
        "truncated",
        "trailing_bytes",
        "limit_exceeded",
        "wrong_type",
        "bad_framing",
    } <= set(outcomes)
