"""What is written beside a committed offset: the id of the topic that it is an offset of."""

from typing import Final

_mark: Final = "penstock topic-id="


def offset_note(topic_id: str | None) -> str:
    """The metadata of a commit; empty where the topic has no id."""
    return "" if topic_id is None else f"{_mark}{topic_id}"


def noted_topic_id(metadata: str | None) -> str | None:
    """The topic's id in a commit's metadata, None where another program wrote it or there is none."""
    if metadata is None or not metadata.startswith(_mark):
        return None
    return metadata.removeprefix(_mark) or None
