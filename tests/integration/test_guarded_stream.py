"""A stream under what befalls a guarded deployment: its bundle exchanged on disk; nothing lost, nothing mixed."""

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.bundles import write_stump
from tests.stream import Stream, children, event, event_schema, kill

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]
patience_s = 120.0
long = bool(os.environ.get("PENSTOCK_GUARDED_LONG"))
"""Minutes rather than seconds."""


@contextmanager
def stream_on(folder: Path, servers: str, **changes: Any) -> Iterator[Stream]:
    write_stump(folder / "model", input_schema=orjson.dumps(event_schema))
    stream = Stream(
        folder, servers, f"guarded-{time.time_ns()}", folder / "model", explained=False, **changes
    )
    try:
        yield stream
    finally:
        stream.close()


def test_a_bundle_exchanged_under_four_workers_changes_no_output(kafka: str, tmp_path: Path) -> None:
    """Workers that are killed meanwhile come back with the model that all others have."""
    records = 60_000 if long else 12_000
    with stream_on(tmp_path, kafka, workers=4, objective={"batch_rows_max": 256}) as stream:
        served = json.loads((tmp_path / "model" / "manifest.json").read_bytes())
        stream.feed([event(number) for number in range(records)], per_s=records / 8)
        supervisor = stream.start("a")
        stream.wait(0.1, patience_s)
        other = write_stump(tmp_path / "other", cover=False, input_schema=orjson.dumps(event_schema))
        for path in sorted((tmp_path / "model").iterdir()):
            path.unlink()
        for path in (tmp_path / "other").iterdir():
            shutil.copyfile(path, tmp_path / "model" / path.name)
        assert json.loads((tmp_path / "model" / "manifest.json").read_bytes()) != served
        chance = random.Random(5)
        kills = 15 if long else 3
        for share in (0.2 + 0.6 * number / kills for number in range(kills)):
            stream.wait(share, patience_s)
            if workers := children(supervisor):
                kill(chance.choice(workers))
        stream.wait(1.0, patience_s)
        stream.await_readers(30.0)
        books = stream.books()
        assert books.check(explained=False) == []
        digests = {seen.body["model"]["digest"] for rows in books.predictions.values() for seen in rows}
        assert len(digests) == 1
        assert other.digest not in digests
        assert supervisor.poll() is None
        supervisor.terminate()
        assert supervisor.wait(30) == 0
