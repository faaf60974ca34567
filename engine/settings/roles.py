"""The roles that permissions on Kafka are given by."""

from typing import Final

roles: Final = ("worker", "scaler", "lag", "letters", "replay", "audit", "tail")
"""worker: `run` and `check`; letters: `dlq list` and `dlq show`; replay: `dlq replay`; audit: `audit verify`; tail: `tail`, `top`."""
