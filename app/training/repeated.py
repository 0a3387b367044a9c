"""Recipes that say one thing twice: YAML would take the last without a word."""

from pathlib import Path

import yaml

from app.errors import fail


def check_once(name: str) -> None:
    """End with one line if a mapping of a recipe has a key twice.

    What is no YAML at all is left to the parser, which says what is wrong with it.

    Args:
        name: Of the file.
    """
    try:
        root = yaml.compose(Path(name).read_text(), yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return
    found = None if root is None else _twice(root, ())
    if found is not None:
        path, line = found
        fail(f"--config {name} line {line}: {'.'.join(path)} is there twice; keep one")


def _twice(
    node: yaml.Node, path: tuple[str, ...]
) -> tuple[tuple[str, ...], int] | None:
    """Where the first key is that stands beside itself, and its line."""
    if isinstance(node, yaml.SequenceNode):
        inner = ((str(i), part) for i, part in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                return (*path, key.value), key.start_mark.line + 1
            seen.add(key.value)
        inner = ((str(key.value), value) for key, value in node.value)
    else:
        return None
    founds = (_twice(part, (*path, name)) for name, part in inner)
    return next((found for found in founds if found is not None), None)
