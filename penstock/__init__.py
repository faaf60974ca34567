"""Streaming inference on Kafka: every record predicted exactly once, and explained."""

__version__ = "0.1.0"  # the one place; the distribution's metadata are made from it
