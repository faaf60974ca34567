"""What a part of the long run has to say, out of its output: its own result or the names of what failed, never a line of a log."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

failed_shown_max: Final = 5

_result: Final = re.compile(
    r"""
      =*\s*(?P<pytest>\d+\ (?:passed|failed|errors?|skipped|xfailed|xpassed|deselected)\b.*\ in\ [\d.]+s.*?)\s*=*
    | (?P<stops>\d+\ of\ \d+\ (?:within|clean)\ .*)
    | (?P<files>[\d,]+\ model\ files\ from\ .*)
    | (?P<terminal>penstock\ top\ takes\ .*)
    | (?P<made>[\d,]+\ records\ of\ .*)
    | (?P<matrix>\d+\ cells\ in\ .*)
    | (?P<simulation>\d+\ runs\ from\ seed\ \d+\ on\ with\ \d+\ records\ in\ .*)
    """,
    re.VERBOSE,
)
_failed: Final = re.compile(r"(?:FAILED|ERROR) (\S+)( - .*)?")


def result_of(lines: Sequence[str], code: int | None, log: Path) -> str:
    """One line for the report. `code`: the exit code, None for a part that was ended when its time was over; `log`: where its
    output is."""
    found = [match for line in lines if (match := _result.fullmatch(line.strip()))]
    said = next(text for text in found[-1].groups() if text) if found else ""
    failed = list(dict.fromkeys(match[1] for line in lines if (match := _failed.fullmatch(line.strip()))))
    if code != 0 and failed:
        more = f" and {len(failed) - failed_shown_max} more" if len(failed) > failed_shown_max else ""
        said += f": {', '.join(failed[:failed_shown_max])}{more}"
    if code is None:
        return f"did not end in its time{f', so far: {said}' if said else ''}; its output is {log}"
    if said:
        return said
    return f"ended with exit code {code} before it had a result; its output is {log}"
