"""The compute core of adapted linears and convolutions."""
