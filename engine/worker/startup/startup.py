"""What a start has found so far, the steps that it is made of, and the walk over them. Loads next to nothing, for the supervisor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

from penstock.schemas.errors import ConfigError, InvariantError

if TYPE_CHECKING:
    from penstock.engine.clock import Clock
    from penstock.engine.codec.contracts import OutputPrefixes
    from penstock.engine.codec.decode import RowDecoder, SchemaStore
    from penstock.engine.codec.framing import Schema
    from penstock.engine.codec.passed_fields import PassedFields
    from penstock.engine.models.bundle.bundle import Bundle
    from penstock.engine.models.runtime.cache import CachedModel
    from penstock.engine.models.runtime.loader import ServedModel
    from penstock.engine.pipeline.outgoing import OutputLimits
    from penstock.engine.pipeline.sampling import Sampler
    from penstock.engine.pipeline.scorer import Scorer
    from penstock.engine.ports import Explainer, Sink
    from penstock.engine.settings.model import Settings
    from penstock.engine.telemetry.metrics import Metrics
    from penstock.engine.worker.calibration import Rehearsed
    from penstock.engine.worker.model_copy import ModelCopy
    from penstock.engine.worker.startup.kafka_facts import KafkaFacts
    from penstock.schemas.records import Records

T = TypeVar("T")

Group = Literal["supervisor", "kafka", "registry", "model", "delivery", "records", "scaler"]
"""Who walks a step, and when: the supervisor before its workers begin; a worker, first what it needs of Kafka and the registry,
then its model, at last its producers. The last two stop no worker: what the scaler's own start looks at, and what of records to
come is known by their newest schema, while those before it may still be read."""


@dataclass(kw_only=True, slots=True)
class Startup:
    """What a start has found so far. Each step reads what those before it have left here, and leaves its own.

    The four functions are what differs between a start, which does it, and a check, which may not: it registers no contract, and
    goes by a transactional id that is no worker's. None: there is none, as where the broker is one in memory.
    """

    settings: Settings
    clock: Clock
    metrics: Metrics | None = None
    name: str = ""
    """The worker's name, which stands in its dead letters."""
    copy: ModelCopy | None = None
    """What the supervisor copied for its workers."""
    ask_kafka: Callable[[], KafkaFacts] | None = None
    publish_contracts: Callable[[], OutputPrefixes] | None = None
    newest_input_schema: Callable[[], tuple[int, Schema] | None] | None = None
    """Version and schema of the newest that is registered for the input."""
    open_sink: Callable[[], Sink] | None = None
    condemned: Callable[[Records], Sequence[int]] = lambda _: ()
    schemas: SchemaStore | None = None
    sampler: Sampler | None = None
    """Takes a few records of each batch for the pages, where there are some."""

    cluster: str = ""
    limits: OutputLimits | None = None
    """What the output topics take; None: Kafka's defaults."""
    prefixes: OutputPrefixes | None = None
    facts: KafkaFacts | None = None
    bundle: Bundle | None = None
    model: ServedModel | None = None
    reader_schema: Schema | None = None
    decoder: RowDecoder | None = None
    passing: PassedFields | None = None
    cached: CachedModel | None = None
    explainer: Explainer | None = None
    scorer: Scorer | None = None
    rehearsed: tuple[Rehearsed, ...] = ()
    batch_rows_max: int | None = None
    """The largest batch that the objective allows."""
    sink: Sink | None = None
    proved: set[str] = field(default_factory=set)
    """Names of the steps that hold."""
    failed: set[str] = field(default_factory=set)
    """Names of those that do not, and of those that could not be taken without them."""

    def the(self, found: T | None) -> T:
        """What an earlier step has left. Raises InvariantError when it has not."""
        if found is None:
            raise InvariantError("a step of the start was taken before the one that it needs")
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One thing that a start proves."""

    name: str
    group: Group
    proves: str
    prove: Callable[[Startup], str | None]
    """What was found, in a sentence; None where these settings leave nothing to prove. Raises one of Penstock's errors."""
    needs: tuple[str, ...] = ()
    """Steps whose findings it reads."""


class AddressTakenError(ConfigError):
    """Somebody listens at this address of ours already."""

    def __init__(self, text: str, *, host: str, port: int) -> None:
        super().__init__(text)
        self.host, self.port = host, port


Look = Callable[[Step, Callable[[], str | None]], bool]
"""Takes a step and how to take it; returns whether it holds."""


def stop_at_the_first(step: Step, prove: Callable[[], str | None]) -> bool:
    """As a start looks at a step: what is wrong is raised."""
    prove()
    return True


def walk(startup: Startup, steps: Sequence[Step], *wanted: Group, look: Look = stop_at_the_first) -> None:
    """Take the steps of these groups, in the order of the list: not again what holds already, nor what needs something that does not."""
    for step in steps:
        if step.group not in wanted or step.name in startup.proved:
            continue
        if startup.failed.intersection(step.needs):
            startup.failed.add(step.name)
            continue

        def prove(step: Step = step) -> str | None:
            return step.prove(startup)

        (startup.proved if look(step, prove) else startup.failed).add(step.name)
