"""Estimators that come from a file, and not from the process that fitted them."""
