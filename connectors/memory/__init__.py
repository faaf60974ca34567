"""A whole broker in one process: topics, groups, transactions, faults on request."""
