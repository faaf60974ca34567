"""A worker's side of the pages: what it keeps for them, and what it tells its supervisor when asked."""
