"""What is wrong with a pipeline now: what was seen of it, and what that means."""
