"""Rows to try a model on: given ones, made-up ones, and those on each side of every threshold."""
