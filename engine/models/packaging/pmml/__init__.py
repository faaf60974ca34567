"""PMML read by our own reader: trees and what is made of them as one ensemble, regressions as a graph of doubles."""
