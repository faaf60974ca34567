"""Models: the bundle, running it, and making it."""
