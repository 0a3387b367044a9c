"""The pages: commands parse, messages are those of the code, no page is lost.

`make docs-check` runs the commands; these tests hold what is quick to hold.
"""

import ast
import re
import subprocess
import sys

import pytest
import yaml

from app.prediction.parser import parse as parse_predict
from app.serving.options import parse as parse_serving
from app.training.command import COMMANDS
from docs.commands import ROOT, blocks, commands, pages

FOUND = [command for page in pages() for command in commands(page)]
TABLE = ROOT / "docs/troubleshooting.md"


def test_commands__are_found_and_of_every_kind():
    kinds = {command.kind for command in FOUND}
    assert kinds >= {"train", "predict", "serve", "ask", "install"}
    assert len(FOUND) > 50


@pytest.mark.parametrize(
    "command",
    [c for c in FOUND if c.kind in ("predict", "serve")],
    ids=lambda c: f"{c.page}:{c.line}",
)
def test_commands__of_predicting_and_serving_parse(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("of.csv", "points.csv"):  # tables that are named have to be there
        (tmp_path / name).write_text("image,adapter\n")
    words = re.sub(r" \[[^\]]*\]$", "", command.text).split()
    words = [word.strip("'") for word in words if not word.startswith("RAY_")]
    if command.kind == "predict":
        parse_predict(words[2:])
    elif "cluster" not in words[2]:
        parse_serving(words[3:])


@pytest.mark.parametrize(
    "command",
    [c for c in FOUND if c.kind == "train"],
    ids=lambda c: f"{c.page}:{c.line}",
)
def test_commands__of_training_name_recipes_that_are_there(command):
    words = command.words
    named = [words[i + 1] for i, word in enumerate(words) if word == "--config"]
    assert named
    for recipe in named:
        assert (ROOT / recipe).is_file(), recipe
    assert words[2] in COMMANDS


@pytest.mark.parametrize(
    "folder",
    ["app", "app/*", "models", "models/adapters", "models/artefacts", "datamodules"],
)
def test_floor_plan__has_every_module(folder):
    plan = (ROOT / "docs/floor_plan.md").read_text()
    modules = {path.name for path in ROOT.glob(f"{folder}/*.py")}
    assert modules
    unnamed = modules - set(re.findall(r"\w+\.py", plan))
    assert unnamed <= {"__init__.py", "__main__.py"}


def test_python__of_every_page_compiles():
    for page in pages():
        for line, block in blocks(page, "python"):
            compile(block, f"{page.name}:{line}", "exec")


def test_messages__of_troubleshooting_are_those_of_the_code():
    """Each part between the dots is a part of one text in the code."""
    parts: list[str] = []
    for folder in ("app", "models", "datamodules"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    parts.append(node.value)
    text = "\n".join(parts)
    rows = re.findall(r"^\| `(.+)` \|", TABLE.read_text(), re.M)
    assert len(rows) >= 30
    for message in rows:
        for piece in message.split("…"):
            if len(piece.strip(" ;:,.()")) > 3:
                assert piece.strip() in text, (message, piece)


def test_site__has_every_page_in_its_contents():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def leaves(node):
        if isinstance(node, str):
            return [node]
        values = node.values() if isinstance(node, dict) else node
        return [leaf for value in values for leaf in leaves(value)]

    there = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}
    assert set(leaves(site["nav"])) == {p for p in there if not p.startswith("space/")}


def test_commands__are_listed_as_a_person_reads_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\npip install -e . && python train.py fit \\\n  --config a.yaml  # c\n"
        "```\n\n```bash\ncurl 'http://h/#x' > o\n```\n"
    )
    found = [(c.line, c.kind, c.text) for c in commands(page)]
    assert found == [
        (2, "install", "pip install -e ."),
        (2, "train", "python train.py fit --config a.yaml"),
        (7, "ask", "curl 'http://h/#x' > o"),
    ]


def test_documentation__builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "api/index.html").is_file()
