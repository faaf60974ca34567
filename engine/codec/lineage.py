"""Where results come from, as every one of them says."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """The input's cluster and topic, and the model. The id of the topic comes with the records, since it may change."""

    cluster: str
    topic: str
    model_name: str
    model_version: str
    model_digest: str
