"""When the objective will be breached, and why: from what was seen of an engine over some minutes."""
