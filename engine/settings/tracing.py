"""Settings of traces: where they go, and of which batches there are some."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from penstock.engine.settings.section import Section, address


class TracingSettings(Section):
    """Traces of batches in OpenTelemetry's protocol (OTLP over HTTP); without this section there are none."""

    endpoint: Annotated[str, AfterValidator(address)] = Field(
        description="the collector's address with its path, e.g. http://collector:4318/v1/traces"
    )
    one_in: int = Field(
        100,
        ge=0,
        le=1_000_000,
        description="one batch in so many is traced, beside every slow one and every one with rejected records; 0: those alone",
    )
    slow_ms: float | None = Field(
        None,
        gt=0,
        le=600_000,
        description="a batch is slow when it takes longer than this from its poll to its acknowledgement; default: objective.latency_slo_ms",
    )
    timeout_s: float = Field(
        5.0,
        gt=0,
        le=60,
        description="how long the collector may take; nothing else waits for it",
    )
    token_file: Path | None = Field(
        None, description="file with a token, which the collector gets as `Authorization: Bearer`"
    )
    ca_file: Path | None = Field(
        None,
        description="PEM file of the authorities that may have signed the collector's certificate; default: the system's",
    )
