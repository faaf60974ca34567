"""What is written to the input topic: records of every kind, some amid transactions of other programs."""

from penstock.connectors.memory.log import State, Transaction
from penstock_bench.faults.cluster import Cluster, input_topic
from penstock_bench.faults.fates import Fates, Trouble
from penstock_bench.faults.journal import Journal, Kind, Place, Written
from penstock_bench.faults.outcomes import write_input


class Inputs:
    """Producers of a run; what they do is drawn as everything else of it is."""

    def __init__(
        self, cluster: Cluster, journal: Journal, fates: Fates, *, records_max: int, keys: int
    ) -> None:
        self._cluster, self._journal, self._fates = cluster, journal, fates
        self._records_max, self._keys = records_max, keys
        self.records = 0
        self._open: dict[str, tuple[Transaction, float]] = {}
        self._made = 0

    def write(self) -> None:
        """Some more records arrive."""
        drawn, cluster = self._fates.random, self._cluster
        for _ in range(min(drawn.choice((1, 3, 12)), self._records_max - self.records)):
            kind = Kind.GOOD
            if self._fates.chance(0.06, Trouble.POISON):
                kind = drawn.choice(tuple(Kind))
            self.records += 1
            key = b"k%d" % drawn.randrange(self._keys) if drawn.random() < 0.9 else None
            weight = drawn.randrange(1000)
            value = write_input(kind, self.records, weight, self._journal.output_format)
            partition = cluster.choose(key, cluster.partitions(input_topic))
            transaction, visible = None, True
            for name in [n for n, (held, _) in self._open.items() if held.state is not State.OPEN]:
                del self._open[name]  # by its time-out
            if self._open and drawn.random() < 0.5:
                name = drawn.choice(sorted(self._open))
                transaction, visible = self._open[name][0], False
            offset = cluster.high(input_topic, partition)
            place: Place = (cluster.topic_id(input_topic), partition, offset)
            self._journal.entries.append(Written(place, key, kind, self.records, weight, visible))
            if transaction is not None:
                cluster.foreign[name].append(place)
            cluster.append(input_topic, partition, [key], [value], transaction=transaction)
        self._foreign()

    def begin_foreign(self) -> str:
        """Another program begins a transaction; its name."""
        self._made += 1
        name = f"foreign-{self._made}"
        epoch = self._cluster.initialise(name)
        self._open[name] = (self._cluster.begin(name, epoch, 15.0), epoch)
        self._cluster.foreign[name] = []
        return name

    def end_foreign(self, only: str | None = None) -> None:
        """One of them, or all, are committed or aborted."""
        for name in [only] if only else sorted(self._open):
            self._open.pop(name)
            self._cluster.end_foreign(name, committed=self._fates.random.random() < 0.6)

    def _foreign(self) -> None:
        """Other programs begin and end transactions."""
        if self._fates.chance(0.2, Trouble.FOREIGN):
            self.begin_foreign()
        elif self._open and self._fates.random.random() < 0.3:
            self.end_foreign(self._fates.random.choice(sorted(self._open)))
