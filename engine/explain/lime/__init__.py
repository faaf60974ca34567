"""LIME: by a fixed design, and for trees in closed form."""
