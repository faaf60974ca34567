"""Avro records as columns, natively, and in plain Python where the native reader cannot."""
