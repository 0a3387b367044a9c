"""Pictures: what a file is, whether it is whole, and its pixels."""
