"""Schema Registry over HTTP."""
