"""Weights that others published: where they are, what they are, how they are read."""
