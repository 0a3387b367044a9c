"""Depth maps, pictures, lists and archives: what data sets are made of."""
