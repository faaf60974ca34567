"""The documents of the pages: pure functions of what the workers said."""
