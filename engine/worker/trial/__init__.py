"""One record tried beside the stream: again, with another value, with another bundle; in a process of its own."""
