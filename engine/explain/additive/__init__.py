"""Models whose score is a sum of what each feature says for itself: exact Shapley values from as many evaluations as features."""
