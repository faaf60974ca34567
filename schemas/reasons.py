"""Why a record is set aside: the closed sets that a dead letter's `stage` and `reason` come from."""

from enum import StrEnum


class Stage(StrEnum):
    """Where on its way the record stopped."""

    DECODE = "decode"
    VALIDATE = "validate"
    INFER = "infer"
    EXPLAIN = "explain"
    ENCODE = "encode"


class Reason(StrEnum):
    """What was wrong. Each is documented in docs/contracts.md."""

    UNREADABLE = (
        "unreadable"  # a range of offsets whose bytes no client can read (input.unreadable: set_aside)
    )
    NULL_VALUE = "null_value"  # the record has no value (a tombstone)
    RECORD_TOO_LONG = "record_too_long"  # more bytes than input.record_bytes_max
    BAD_FRAMING = "bad_framing"  # magic byte, header or fingerprint is not what the framing asks for
    UNKNOWN_SCHEMA = "unknown_schema"  # the registry does not know the schema id
    INCOMPATIBLE_SCHEMA = "incompatible_schema"  # the writer's schema does not resolve to the reader's
    TRUNCATED = "truncated"  # the bytes end before the record does
    TRAILING_BYTES = "trailing_bytes"  # the record ends before the bytes do
    CORRUPT = "corrupt"  # a length, index, number or text that cannot be
    LIMIT_EXCEEDED = "limit_exceeded"  # depth, items or bytes past the decoder's bounds
    MISSING_VALUE = "missing_value"  # null, absent or NaN where the feature's policy is to reject
    NOT_FINITE = "not_finite"  # an infinity where the feature's policy is to reject
    OUT_OF_RANGE = "out_of_range"  # a number outside the ranges that the feature takes
    UNSEEN_CATEGORY = (
        "unseen_category"  # a category the model was not trained on, where the policy is to reject
    )
    WRONG_TYPE = "wrong_type"  # a value of another type than the feature
    NO_FEATURES = "no_features"  # the record has none of the model's fields: it is of another kind
    MODEL_FAILED = "model_failed"  # the model throws on this record, alone
    OUTPUT_NOT_FINITE = "output_not_finite"  # the model answers NaN or an infinity
    KILLED_WORKER = "killed_worker"  # a worker process died on this record twice
    EXPLAINER_FAILED = "explainer_failed"  # no explanation could be computed for it
    OUTPUT_TOO_LONG = "output_too_long"  # the encoded result is longer than its topic takes
    NO_KEY = "no_key"  # an output topic is compacted, and the record has no key
