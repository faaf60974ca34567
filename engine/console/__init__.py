"""What a person at a terminal reads."""
