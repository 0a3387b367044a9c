"""Every form on disk of a trained network, written and opened."""
