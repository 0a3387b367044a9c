"""What needs no network is answered before torch and Lightning are imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PROBE = """
import contextlib, importlib, io, json, sys
answers = []
for wing, args in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            importlib.import_module(f"app.{wing}.command").main(args)
        except SystemExit as stopped:
            code = stopped.code
    answers.append([code, out.getvalue(), err.getvalue()])
loaded = {"torch", "lightning", "transformers"} & set(sys.modules)
assert not loaded, loaded
json.dump(answers, sys.stdout)
"""
PICTURE = "docs/predict.png"
CASES = [
    ("training", ["--version"], 0, "LAVA Depth 0."),
    ("prediction", ["--version"], 0, "LAVA Depth 0."),
    ("training", ["-h"], 0, "recipes in configs/"),
    ("training", [], 1, "no command is given; use one of fit, validate, test"),
    ("training", ["fits"], 1, "'fits' is no command"),
    ("training", ["predict"], 1, "photographs are for predict.py"),
    ("training", ["fit"], 1, "fit needs a recipe"),
    ("training", ["fit", "--config", "no.yaml"], 1, "no.yaml: there is no such file"),
    ("training", ["-c", "configs/demo.yaml"], 1, "no command is given"),
    ("training", ["fit", "--config"], 1, "--config needs the name of a file"),
    ("prediction", ["-h"], 0, "--export-format"),
    ("prediction", [PICTURE], 1, "required: --model"),
    ("prediction", ["--model", "tiny-rooms"], 1, "no photographs given"),
    ("prediction", ["no.png", "--model", "tiny-rooms"], 1, "no.png does not exist"),
    ("prediction", [PICTURE, "--model", "no.ckpt"], 1, "there is no such file"),
]
WRONG = {
    "network": ("S,v4", "is not SIZE,VERSION,KIND"),
    "formats": ("tiff", "invalid choice: 'tiff'"),
    "depth_scale": ("7", "invalid choice: '7'"),
    "colormap": ("rainbow", "invalid choice"),
    "size": ("12by4", "is not a number, WxH, maxN, or native"),
    "fx": ("-1", "must be pixels, above 0"),
    "fov": ("200", "between 0 and 180 degrees"),
    "batch_size": ("0", "must be at least 1"),
    "workers": ("x", "invalid int value"),
    "precision": ("8", "invalid choice"),
    "accelerator": ("quantum", "invalid choice"),
    "devices": ("many", "is no number of devices"),
    "export_format": ("onnx", "give --export FOLDER"),
    "export_base": ("a/b", "it is for --export-format peft"),
    "license": ("mit", "it is for --push-to-hub"),
}
CASES += [
    (
        "prediction",
        [PICTURE, "--model", "tiny-rooms", f"--{name.replace('_', '-')}", value],
        1,
        message,
    )
    for name, (value, message) in WRONG.items()
]


@pytest.fixture(scope="module")
def answers() -> list[tuple[int, str, str]]:
    """What each case came to, all of them in one fresh interpreter without torch."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps([case[:2] for case in CASES]),
        capture_output=True,
        text=True,
        check=False,
        cwd=REPO,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: str(CASES[n][1]))
def test_answer__needs_no_torch_and_is_one_line(answers, number):
    _, _, code, message = CASES[number]
    found, out, err = answers[number]
    assert found == code
    assert message in (err if code else out)
    assert len(err.splitlines()) == (1 if code else 0)


@pytest.mark.parametrize("package", ["models.adapters", "models.networks"])
def test_package__is_importable_without_lightning(package):
    code = f"import sys, {package}; assert 'lightning' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO)
