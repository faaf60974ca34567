"""What acts over HTTP: who is let in, what they may do, and the record of all of it."""
