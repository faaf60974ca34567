"""Files scored by the stream's own stages: parts of the input, each written whole or not at all."""
