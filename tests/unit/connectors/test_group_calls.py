"""No program of Penstock makes the calls of librdkafka that may end it."""

import re
from pathlib import Path

import penstock.connectors
import penstock.engine

deadly = re.compile(
    r"\b(describe_consumer_groups|list_consumer_groups|list_consumer_group_offsets|alter_consumer_group_offsets"
    r"|delete_consumer_groups)\("
)
"""Calls of the admin client that go to a group's coordinator (librdkafka's issues 4605 and 5040)."""


def test_no_call_of_the_admin_client_goes_to_a_coordinator() -> None:
    folders = {
        Path(place) for package in (penstock.engine, penstock.connectors) for place in package.__path__
    }
    files = [file for folder in folders for file in folder.rglob("*.py")]
    assert len(files) > 200
    assert [file.name for file in files if deadly.search(file.read_text())] == []
