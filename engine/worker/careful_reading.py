"""How a worker reads after others have died in their Kafka client."""

import logging
from pathlib import Path

from penstock.connectors.kafka.reading.careful import Careful
from penstock.engine.telemetry.events import Event, EventLog
from penstock.engine.worker.poison_records import CarefulPlaces
from penstock.engine.worker.process import careful_pauses_s
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.worker")


def carefully_read(careful: int, *, slot: int, run_folder: Path, events: EventLog) -> Careful:
    """How to read after deaths in the client, and that this is done; where each partition begins is noted for the supervisor."""
    pause_s = careful_pauses_s[min(careful, len(careful_pauses_s)) - 1]
    events.note(
        Event.CAREFUL_READING,
        f"the last worker died, perhaps of what its Kafka client could not read ({careful} in a row): this one reads carefully. "
        f"What is stored is looked at by hand before the client reads it, and that fetches single batches, {pause_s:g} s apart",
        level=logging.WARNING,
    )
    places = CarefulPlaces(run_folder / f"careful-{slot}")

    def tell(partition: int, offset: int, what: str, notable: bool) -> None:
        if not places.note(partition, offset, what):
            return
        text = f"partition {partition}, offset {offset}: {what}"
        if notable:
            events.note(Event.CAREFUL_READING, text, level=logging.WARNING)
        else:
            logger.info("%s", text, extra=LogCode.CAREFUL_READING_STEP.extra)

    return Careful(pause_s=pause_s, tell=tell)
