"""A bundle in a Python process: the stream's own stages over rows in memory."""
