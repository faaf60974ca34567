"""What ends a run over files."""

from penstock.schemas.errors import PenstockError


class ScoreError(PenstockError):
    """A file cannot be read or written: what is done so far stays for the next run. Exit code 1."""
