"""Texts inside scikit-learn models: vectorizers as features that count words."""
