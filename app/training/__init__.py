"""train.py: fit, validate and test."""
