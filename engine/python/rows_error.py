"""Rows that a caller in Python handed over and that cannot be predicted."""

from penstock.schemas.errors import PenstockError
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Rejection


class RowsError(PenstockError, ValueError):
    """A row that the stream would set aside. `row` is its place, `stage` and `reason` are those of its dead letter."""

    def __init__(self, message: str, *, row: int, stage: Stage, reason: Reason) -> None:
        super().__init__(message)
        self.row = row
        self.stage = stage
        self.reason = reason


def rows_error(rejection: Rejection, row: int) -> RowsError:
    """The error for the first row that is rejected."""
    message = f"row {row}: {rejection.detail} ({rejection.reason}); score() sets such rows aside"
    return RowsError(message, row=row, stage=rejection.stage, reason=rejection.reason)
