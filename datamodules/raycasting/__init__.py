"""Ray-cast rooms and streets with exact depth."""
