"""The commands of the pages: found, and what each of them is."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]
NEEDS = {
    "NYU": "NYU Depth v2",
    "KITTI": "KITTI",
    "DATA": "the commonsense tasks",
    "BEST": "a run on them",
    "configs/demo_language.yaml": "two minutes; the slow tests run it",
    "depth_anything_v2_metric_hypersim_vits.pth": "a download",
    "depth_anything_v2_vits.pth": "a download",
    "docker": "Docker",
    "ray": "a cluster",
    "RAY_ADDRESS=auto": "a cluster",
    "app.serving.cluster": "Ray",
    "pytest": "CI",
    "make": "CI",
    "mkdocs": "CI",
    "benchmarks/gpu.sh": "a GPU",
}
"""Words of commands that are only parsed, and what running them would take."""
Kind = Literal["train", "predict", "serve", "ask", "install", "set", "other"]


@dataclass(frozen=True)
class Command:
    """One command as a page has it."""

    page: str
    line: int
    text: str
    """On one line, without its comment."""

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)

    @property
    def kind(self) -> Kind:
        """What runs it."""
        words = [w for w in self.words if "=" not in w or w.startswith("-")]
        first = words[:3]
        if first[:2] == ["python", "train.py"]:
            return "train"
        if first[:2] == ["python", "predict.py"]:
            return "predict"
        if first[:2] == ["python", "-m"] and first[2].startswith("app.serving"):
            return "serve"
        kinds: dict[str, Kind] = {"curl": "ask", "pip": "install", "export": "set"}
        return kinds.get(first[0], "other")

    @property
    def needs(self) -> str | None:
        """What it would take to run it; None if nothing."""
        return next((NEEDS[word] for word in self.words if word in NEEDS), None)


def pages() -> list[Path]:
    """README and every page."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> Iterator[Command]:
    """Of the page's shell blocks, in order."""
    for line, block in blocks(page, "bash"):
        text, at = "", line
        for number, row in enumerate(block.splitlines(), line):
            at = at if text else number
            text += re.sub(r"\s+#\s.*$", "", row)
            if text.endswith("\\"):
                text = text[:-1]
                continue
            for part in text.split("&&"):
                if part.strip():
                    yield Command(page.name, at, " ".join(part.split()))
            text = ""


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """Fenced blocks of a language, each with the number of its first line."""
    text = page.read_text()
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.M | re.S):
        yield text[: found.start(1)].count("\n") + 1, found[1]
