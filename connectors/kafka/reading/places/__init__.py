"""Partitions come, begin and go: where reading of each begins, and what was deleted before that place."""
