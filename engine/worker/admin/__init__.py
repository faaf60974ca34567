"""The supervisor's admin port: its actions, and how it is put together."""
