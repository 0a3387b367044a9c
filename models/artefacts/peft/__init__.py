"""Adapters as PEFT keeps them, and back."""
