"""The settings tree: what each key means, how it is read, and what follows from it."""
