"""What `benchmarks.kill` kills, and how it looks at what is left."""
