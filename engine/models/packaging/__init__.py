"""Making a bundle from a trained model, with the proof that it predicts the same."""
