"""Dead letters: the message, what its payload holds, and the way back to the input topic."""
