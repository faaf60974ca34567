"""Models and steps that compare a row with rows kept from training, or put it through random features."""
