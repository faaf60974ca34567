"""Streaming inference on Kafka: every record predicted exactly once, and explained."""
