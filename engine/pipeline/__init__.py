"""From poll to commit: the polling thread, the compute thread, and what passes between them."""
