"""Every record that was read is accounted for: the balance, taken at one moment."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """Records since the start. What came out is counted from the outcomes, what is open from the ledger: the two know nothing of each
    other, so that `missing` is a check."""

    read: int
    predicted: int
    rejected: int
    skipped: int  # tombstones
    in_flight: int
    dropped: int  # by a rewind or a revocation, to be read again here or by their next owner

    @property
    def missing(self) -> int:
        """Records that were read and are nowhere: 0, or a fault of ours."""
        return self.read - self.predicted - self.rejected - self.skipped - self.in_flight - self.dropped
