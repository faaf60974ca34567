"""What to do about each reason for which records are set aside."""

from typing import Final

from penstock.schemas.reasons import Reason

_other_records = (
    "the producer sends other records than the model was packaged for: mend it, or package the model for them"
)

_cures: Final = {
    Reason.UNREADABLE: "restore the replica; penstock dlq show names the range",
    Reason.NULL_VALUE: "input.null_value: skip, if records without a value are none to predict",
    Reason.RECORD_TOO_LONG: "raise input.record_bytes_max, or mend the producer",
    Reason.BAD_FRAMING: "input.framing and input.format have to be what the producer writes",
    Reason.UNKNOWN_SCHEMA: "register the schema, or add it to input.writer_schemas; then penstock dlq replay",
    Reason.INCOMPATIBLE_SCHEMA: "the writer's schema has to resolve to the bundle's: mend one of them",
    Reason.TRUNCATED: "input.schema has to be the schema that the producer writes with",
    Reason.TRAILING_BYTES: "input.schema has to be the schema that the producer writes with",
    Reason.CORRUPT: "input.format and input.schema have to be what the producer writes",
    Reason.LIMIT_EXCEEDED: "mend the producer: no record needs such a depth or length",
    Reason.MISSING_VALUE: "mend the producer, or package the feature with a policy for missing values",
    Reason.NOT_FINITE: "mend the producer, or package the feature with a policy for infinities",
    Reason.OUT_OF_RANGE: "mend the producer, or package the feature with other ranges (within)",
    Reason.UNSEEN_CATEGORY: "train the model on the new category, or package the feature with a policy for unseen ones",
    Reason.WRONG_TYPE: _other_records,
    Reason.NO_FEATURES: f"{_other_records}; a feature's field says where a value is read",
    Reason.MODEL_FAILED: "try one of them: penstock dlq show, then penstock explain --row",
    Reason.OUTPUT_NOT_FINITE: "try one of them: penstock dlq show, then penstock explain --row",
    Reason.KILLED_WORKER: "try one of them alone, away from the workers: penstock explain --row",
    Reason.EXPLAINER_FAILED: "choose another explain.method, or explain.policy: none",
    Reason.OUTPUT_TOO_LONG: "raise max.message.bytes of the output topic, or send less (explain.top)",
    Reason.NO_KEY: "cleanup.policy: delete for the output topic, or keys for the records",
}


def cure_of_reason(reason: str) -> str:
    """In one sentence; of a reason of another version, where to look."""
    return _cures[Reason(reason)] if reason in _cures else "penstock dlq show prints one of them whole"
