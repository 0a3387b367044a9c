"""Which version this is: what --version says, and what a report of a fault should."""

import platform
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

BESIDE = ("torch", "lightning", "timm", "transformers")


def told() -> str:
    """One line: this project's version, Python's, and those of what it stands on."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    own = tomllib.loads(text)["project"]["version"]
    return f"LAVA Depth {own} ({', '.join(_beside())})"


def _beside() -> list[str]:
    found = [f"Python {platform.python_version()}"]
    for name in BESIDE:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found
