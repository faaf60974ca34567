"""Delivery as state machines over any broker: exactly once and at least once."""
