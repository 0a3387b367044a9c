"""Language models: what is said of them, and the forms that are theirs."""
