"""What a person watches in a terminal: a running engine, and its predictions as they come."""
