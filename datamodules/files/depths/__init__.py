"""Depth maps: read as other programs write them, and written."""
