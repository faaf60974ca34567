"""The figures of the README, measured here and now."""
