"""What our own log lines are called: a closed set, beside the state changes of a worker (penstock.engine.telemetry.events)."""

from enum import StrEnum


class LogCode(StrEnum):
    """The `event.code` of a line that is no state change; docs/log-codes.md is written from the meanings here."""

    meaning: str

    def __new__(cls, code: str, meaning: str) -> "LogCode":
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    @property
    def extra(self) -> dict[str, str]:
        """For a logger's `extra`."""
        return {"event_code": str(self), "event_dataset": "penstock.log"}

    LINES_HELD_BACK = (
        "lines_held_back",
        "more lines of one code, or of one library, came than are written: how many, and the newest of them",
    )
    PORT_OPEN = "port_open", "a port listens: which, and what it serves"
    PORT_NOT_TOLD = (
        "port_not_told",
        "a worker cannot tell its supervisor its port: its metrics are missing there",
    )
    UNEXPECTED_FAULT = (
        "unexpected_fault",
        "a process or a thread ends by a fault that nobody expected: please report it",
    )
    ANSWER_FAILED = "answer_failed", "a request could not be answered by a fault of ours: its client got 500"
    MODEL_COPIED = "model_copied", "the digest of the bundle that all workers of a supervisor serve"
    MODEL_NOT_COPIED = (
        "model_not_copied",
        "no room for a copy of the bundle: a change of its folder would end the workers",
    )
    BUNDLE_TRUST = "bundle_trust", "who signed the bundle, or that nobody did whose key is known"
    SECRET_UNENCRYPTED = (
        "secret_unencrypted",
        "a password, secret or token is sent over the network unencrypted: which, and to whom",
    )
    SUPERVISOR = "supervisor", "the supervisor replaces a worker, and why; or gives up"
    FENCED = "fenced", "another worker runs under the same identity: this one ends"
    WORKER_REFUSED = "worker_refused", "a worker ends: what it was given cannot work (exit code 2)"
    WORKER_AWAITS = "worker_awaits", "a worker ends: something remote does not answer; it is started again"
    WORKER_FAILED = "worker_failed", "a worker ends: a fault of its own (exit code 1)"
    IN_HAND_NOT_NOTED = (
        "in_hand_not_noted",
        "records in hand cannot be noted: one that kills its worker is not found",
    )
    DEVICE_CHOSEN = "device_chosen", "where the model runs, and why not elsewhere"
    GPU_MODE_CHOSEN = "gpu_mode_chosen", "in which way the model runs on the GPU, and what each took"
    GPU_MODE_PASSED_OVER = (
        "gpu_mode_passed_over",
        "a way of running on the GPU that the model does not take, or that answers otherwise",
    )
    GPU_MEMORY_ORDINARY = "gpu_memory_ordinary", "no page-locked memory: inputs go to the GPU more slowly"
    GPU_NOT_RELEASED = "gpu_not_released", "a GPU does not take back what it gave"
    TREE_KERNEL_UNUSED = "tree_kernel_unused", "the tree kernel is not used, although packaging proved it"
    EXPLAINER_CHOSEN = "explainer_chosen", "how the model is explained and where, and why"
    EXPLAINER_PASSED_OVER = (
        "explainer_passed_over",
        "a faster way to explain that the device does not take, or that answers otherwise",
    )
    FEATURES_ALWAYS_MISSING = (
        "features_always_missing",
        "features that were missing in every one of the first records",
    )
    TRACES_NOT_TAKEN = (
        "traces_not_taken",
        "the collector of traces takes none, and why; and when it does again. Nothing but traces is lost",
    )
    AUDIT = "audit", "somebody acted over HTTP, or was refused: the line is the record"
    AUDIT_NOT_STORED = "audit_not_stored", "records of the audit are in this log alone: the topic takes none"
    PROVIDER_KEYS_KEPT = "provider_keys_kept", "the identity provider's keys cannot be had: known ones stay"
    CERTIFICATE_READ = "certificate_read", "a certificate was read again"
    CERTIFICATE_KEPT = "certificate_kept", "a new certificate is no good: the one before stays"
    REPLAY = "replay", "a replay of dead letters goes on to its next state"
    REPLAY_FAILED = "replay_failed", "a replay of dead letters failed, and why"
    PAGE_REFUSED = (
        "page_refused",
        "somebody was not shown a page: another name of the host, or another site's request",
    )
    SCALER_HOLDS = "scaler_holds", "it cannot be told how many workers it takes: KEDA is told to hold"
    SCALER_SEES_AGAIN = "scaler_sees_again", "the offsets can be read again"
    REPLICAS = "replicas", "another number of replicas is asked for, and why"
    PARTITION_TOO_FULL = "partition_too_full", "a partition gets more than one worker can do"
    PARTITION_LEFT_OUT = "partition_left_out", "a partition is left out of the number of replicas, and why"
    REPORT_PASSED_OVER = "report_passed_over", "a message on the status topic that is no report"
    REPORT_LOST = "report_lost", "a worker's report did not reach the status topic; the next one follows"
    STATUS_TOPIC_FAULT = "status_topic_fault", "the status topic cannot be read"
    KAFKA_CLIENT_ERROR = "kafka_client_error", "Kafka's client reports an error; it goes on by itself"
    KAFKA_CLIENT_LINE = "kafka_client_line", "a line of Kafka's client"
    KAFKA_CLIENT_RENEWED = "kafka_client_renewed", "a new client takes the place of one that was not answered"
    KAFKA_TOKEN_AWAITED = (
        "kafka_token_awaited",
        "the old token does no more, or none new can be had: waited for",
    )  # no token
    KAFKA_QUESTION_FAILED = (
        "kafka_question_failed",
        "a question to the cluster was not answered; it is asked again",
    )
    GHOST_MEMBER_STAYS = "ghost_member_stays", "an old membership of ours could not be taken out of the group"
    TOPIC_SETTINGS_UNTOLD = (
        "topic_settings_untold",
        "the broker does not tell the settings of topics: Kafka's defaults are assumed",
    )
    FOREIGN_COMMIT = "foreign_commit", "another program committed where the group reads on"
    READ_FROM_BEGINNING = "read_from_beginning", "partitions without a commit are read from their beginning"
    READING_RETURNS = "reading_returns", "the client could not read on: reading returns to a place"
    CAREFUL_READING_STEP = (
        "careful_reading_step",
        "after a death of its Kafka client, a worker looks at what is stored before it reads it; and when that is over",
    )
    OFFSETS_DELETED = "offsets_deleted", "offsets were deleted before the group read them"
    OFFSETS_SET_ASIDE = "offsets_set_aside", "offsets that no client can read are dead letters now"
    TOPIC_READ_ANEW = "topic_read_anew", "the topic was deleted and made anew: it is read from its beginning"
