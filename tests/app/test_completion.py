"""What a shell completes: every command's options, without starting Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from app.completion import main
from app.training.command import COMMANDS
from app.training.describing import options_of

ROOT = Path(__file__).parents[2]
bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    pytest.importorskip("shtab")
    place = tmp_path_factory.mktemp("completion") / "script"
    with pytest.MonkeyPatch.context() as patch, place.open("w") as file:
        patch.setattr("sys.stdout", file)
        main(["bash"])
    return place


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    command = f"source {script}; COMP_WORDS=({' '.join(words)}); "
    function = f"_shtab_{words[0].replace('.', '_')}"
    command += (
        f'COMP_CWORD={len(words) - 1}; {function}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    found = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ,
    )
    assert not found.stderr, found.stderr
    return found.stdout.split()


@bash
def test_bash__completes_commands_options_and_choices(script):
    assert set(completed(script, "train.py", "''")) >= {*COMMANDS}
    found = completed(script, "train.py", "fit", "--model.adapter.ra")
    assert {"--model.adapter.rank", "--model.adapter.rank_pattern"} <= {*found}
    assert all(name.startswith("--model.adapter.ra") for name in found)
    assert "--predictions" in completed(script, "train.py", "score", "--pre")
    assert "--per_image" in completed(script, "train.py", "test", "--per")
    assert completed(script, "train.py", "fit", "--data.exif", "''") == [
        "apply",
        "ignore",
    ]
    assert "configs" in completed(script, "train.py", "fit", "--config", "conf")
    assert completed(script, "predict.py", "--export-f") == ["--export-format"]
    assert "onnx" in completed(script, "predict.py", "--export-format", "on")


@pytest.mark.parametrize("command", COMMANDS)
def test_options__are_all_of_a_command_each_once(command):
    names = [name for names, _, _ in options_of(command) for name in names]
    assert len(names) == len({*names})
    assert {"--config", "--data.root", "--model.optimisation.adapter_lr"} <= {*names}


@pytest.mark.parametrize("name", ["train.py", "predict.py"])
def test_commands__can_be_called_by_their_names(name):
    assert os.access(ROOT / name, os.X_OK)
    assert (ROOT / name).read_text().startswith("#!/usr/bin/env python\n")
