"""The notebook runs from its first cell to its last."""

import nbformat
from nbclient import NotebookClient

from docs.commands import ROOT


def test_notebook__runs_end_to_end(monkeypatch):
    # A debugger's own words on frozen modules would count as a warning.
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = nbformat.read(ROOT / "docs/walk.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "clear its outputs"
    client = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": ROOT / "docs"}}
    )
    client.execute()
    last = notebook.cells[-1]["outputs"]
    assert any("image/png" in output.get("data", {}) for output in last)
