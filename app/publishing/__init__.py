"""Handing a trained network on."""
