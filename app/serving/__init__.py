"""Depth over HTTP: one network, its adapters, one batch for all who ask."""
