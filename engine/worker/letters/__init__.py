"""Dead letters with the settings at hand: what is in one, and the way back to the input topic."""
