"""What needs no network is answered before torch and Lightning are imported."""

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PROBE = """
import sys
from app.{wing}.command import main
try:
    main({args!r})
except SystemExit as stopped:
    code = stopped.code
else:
    code = 0
print("code", code, file=sys.stderr)
loaded = {{"torch", "lightning", "transformers"}} & set(sys.modules)
assert not loaded, loaded
"""
PICTURE = "docs/predict.png"
CASES = [
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
    "network": ("S,v3", "is not SIZE,VERSION,KIND"),
    "formats": ("tiff", "invalid choice: 'tiff'"),
    "depth_scale": ("7", "invalid choice: '7'"),
    "colormap": ("rainbow", "invalid choice"),
    "size": ("12by4", "is not a number, WxH, or native"),
    "fx": ("-1", "must be above 0 pixels"),
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


@pytest.mark.parametrize(("wing", "args", "code", "message"), CASES)
def test_answer__needs_no_torch(wing, args, code, message):
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(wing=wing, args=args)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPO,
    )
    assert done.returncode == 0, done.stderr
    *said, last = done.stderr.strip().splitlines()
    assert last == f"code {code}"
    assert message in (done.stdout if code == 0 else said[-1])
    assert len(said) == (code != 0)


@pytest.mark.parametrize("package", ["models.adapters", "models.networks"])
def test_package__is_importable_without_lightning(package):
    code = f"import sys, {package}; assert 'lightning' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO)
