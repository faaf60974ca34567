"""The worker's own histogram of the time from a record's timestamp to the commit of its results."""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

name = "penstock_end_to_end_seconds"


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """Counts of the records that took at most so many seconds, by bound."""

    counts: dict[float, float]

    @staticmethod
    def of(metrics: str) -> "Committed":
        """Read from metrics in Prometheus's text form, over all workers."""
        counts: dict[float, float] = {}
        for family in text_string_to_metric_families(metrics):
            for sample in family.samples if family.name == name else ():
                if sample.name == f"{name}_bucket":
                    bound = float(sample.labels["le"])
                    counts[bound] = counts.get(bound, 0.0) + sample.value
        return Committed(counts=counts)

    def percentile_ms(self, percentile: float, before: "Committed") -> float:
        """Of what was counted since `before`, interpolated inside a bucket as Prometheus does; 0 where nothing was."""
        counts = {bound: count - before.counts.get(bound, 0.0) for bound, count in self.counts.items()}
        total = max(counts.values(), default=0.0)
        if total <= 0:
            return 0.0
        wanted, low, below = total * percentile / 100, 0.0, 0.0
        for bound, count in sorted(counts.items()):
            if count >= wanted:
                top = low if bound == float("inf") else bound
                return 1000 * (low + (top - low) * (wanted - below) / max(count - below, 1e-9))
            low, below = bound, count
        return 1000 * low
