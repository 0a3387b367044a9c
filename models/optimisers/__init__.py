"""Optimisers of this project's own, in plain torch."""

from models.optimisers.flora import Flora

__all__ = ["Flora"]
