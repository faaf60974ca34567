"""The roles that permissions on Kafka are given by."""

from typing import Final

roles: Final = ("worker", "scaler", "lag", "letters", "replay", "audit", "tail", "offsets")
"""worker: `run` and `check`; lag: `lag` and `offsets show`; letters: `dlq list` and `dlq show`; replay: `dlq replay`; audit:
`audit verify`; tail: `tail`, `top`; offsets: `offsets reset`."""
