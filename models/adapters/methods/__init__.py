"""One adapter method a file."""
