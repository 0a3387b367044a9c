"""predict.py: pictures in, depth out."""
