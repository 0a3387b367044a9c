"""Which files make frames: tables, trees of folders, lists of the field."""
