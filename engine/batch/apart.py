"""Where results go, kept apart from what they are made of: nothing is replaced by its own scores, or read as input by the next run."""

import os
from collections.abc import Sequence
from pathlib import Path

from penstock.engine.batch.files import InputFile, is_passed_over, is_remote
from penstock.schemas.errors import ConfigError


def check_apart(out: str, letters: str, given: str, bundle: str, files: Sequence[InputFile]) -> None:
    """Raises ConfigError where an output is the other one, an input, or lies where inputs or the bundle lie.

    Args:
        out, letters: the addresses of the results and of the dead letters.
        given: the input as it was named.
        bundle: the bundle's folder.
        files: what the input stands for.
    """
    named = {"--out": _real(out), "--dead-letters": _real(letters)}
    if _holds(named["--out"], named["--dead-letters"]):
        raise ConfigError(
            f"the dead letters go to a file of their own, not to {letters}, where the results go"
        )
    inputs = {_real(file.address): file.address for file in files}
    folder = _real(given.removeprefix("file://")) if _is_folder(given, files) else None
    for option, place in named.items():
        for real, address in inputs.items():
            if _holds(place, real):
                raise ConfigError(f"{option} would replace {address}, which is read: name another place")
        if folder is not None and _holds(folder, place) and not is_passed_over(place[len(folder) :]):
            raise ConfigError(
                f"{option} lies in {given}, of which the next run would read it as input: name another place"
            )
        if _holds(_real(bundle), place):
            raise ConfigError(f"{option} lies in the bundle {bundle}, which would not be whole any more")


def _real(address: str) -> str:
    return address.rstrip("/") if is_remote(address) else os.path.realpath(address)


def _holds(outer: str, inner: str) -> bool:
    """Whether it is the same place, or a folder around it."""
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def _is_folder(given: str, files: Sequence[InputFile]) -> bool:
    if is_remote(given):
        return "*" not in given and any(file.address != given.rstrip("/") for file in files)
    return Path(given.removeprefix("file://")).is_dir()
