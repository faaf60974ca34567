"""The laboratory: the figures of the README, measured here and now. `penstock bench` finds it in a clone."""

import sys
from pathlib import Path

folder = Path(__file__).parents[1]
"""Where this package lies, with what the rivals are built from."""


def module_command(module: str, *words: str) -> list[str]:
    """The command line that runs a module of this package in a process of its own, from any working directory."""
    start = f"import runpy, sys; sys.path.append({str(folder)!r}); runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-P", "-c", start, *words]
