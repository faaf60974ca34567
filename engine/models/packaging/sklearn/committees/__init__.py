"""Classifiers that are asked about pairs of classes, or vote with their classes."""
