"""The tree ensemble in one form, on which prediction, packaging, explanations and kernels stand."""
