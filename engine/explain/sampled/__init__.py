"""Shapley values of any model by evaluating it."""
