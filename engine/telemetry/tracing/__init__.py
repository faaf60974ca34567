"""Traces of batches: which are kept, and their way to a collector."""
