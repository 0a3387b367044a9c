"""Training, predicting with two processes, and exporting, as small as they go."""

import csv
import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from app.prediction.command import main as predict
from app.training.command import main as train
from benchmarks.killing.files import broken, files_of, leftovers, same
from benchmarks.killing.processes import Case, Process, pair, run

# What the commands import when they need it, so that what is forked has it already.
PREDICTING = (
    "app.prediction.pictures",
    "app.publishing.handing_on",
    "models.artefacts.opening",
)
NEEDED = {
    "predicting": PREDICTING,
    "training": (
        "app.training.cli",
        "models.depth_anything",
        "torch.utils.tensorboard",
    ),
    "exporting": (*PREDICTING, "transformers", "onnx", "onnxruntime", "onnxscript"),
}
DATA: dict[str, Any] = {"domain": "streets", "n_train": 8, "n_val": 4, "n_test": 1}
DATA |= {"image_size": [28, 42], "batch_size": 2, "num_workers": 0}
PICTURES = 60


def preload(kinds: list[str]) -> None:
    """Import what the commands need."""
    for name in (name for kind in kinds for name in NEEDED[kind]):
        import_module(name)


def recipe(folder: Path, adapter: str, epochs: int) -> Path:
    """The packaged network on a few small frames; YAML reads JSON."""
    init = {"size": "tiny", "weights": "tiny-rooms"}
    method = {"class_path": f"models.adapters.{adapter}", "init_args": {"rank": 2}}
    trainer = {"max_epochs": epochs, "accelerator": "cpu", "devices": 1}
    trainer |= {"enable_progress_bar": False, "log_every_n_steps": 1}
    content = {
        "seed_everything": 0,
        "model": {
            "class_path": "models.DepthAnythingModule",
            "init_args": {**init, "adapter": method},
        },
        "data": {"class_path": "datamodules.SyntheticDataModule", "init_args": DATA},
        "trainer": trainer,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.yaml"
    path.write_text(json.dumps(content))
    return path


def fit(config: Path, root: Path) -> list[str]:
    return ["fit", "--config", str(config), "--trainer.default_root_dir", str(root)]


class Training(Case):
    """`train.py fit`, resumed from `last.ckpt` where there is one."""

    def __init__(self, folder: Path, epochs: int = 6) -> None:
        self.folder, self.root = folder, folder
        self.config = recipe(folder, "Lava", epochs)
        self.expected: dict[str, Any] = {}

    def begin(self, name: str) -> None:
        self.root = self.folder / name

    def processes(self) -> list[Process]:
        last = self._last()
        resumed = [] if last is None else ["--ckpt_path", str(last)]
        return [Process(train, [*fit(self.config, self.root), *resumed])]

    def keep_reference(self) -> None:
        self.expected = self._result()

    def wrong(self, *, ended: bool) -> list[str]:
        found = broken(self.root)
        if ended and not found:
            result, expected = self._result(), self.expected
            keys = expected.keys()
            found += [f"another {k}" for k in keys if result[k] != expected[k]]
            last = self._last()
            assert last is not None
            found += leftovers(last.parents[1])
        return found

    def state(self) -> str:
        last = self._last()
        if last is None:
            return "no checkpoint"
        step = torch.load(last, weights_only=True)["global_step"]
        return f"last.ckpt of step {step}"

    def _last(self) -> Path | None:
        found = sorted(self.root.glob("runs/small/version_*/checkpoints/last.ckpt"))
        return found[-1] if found else None

    def _result(self) -> dict[str, Any]:
        """What must not depend on kills: scores, weights, the validation's history."""
        last = self._last()
        assert last is not None
        run_folder = last.parents[1]
        summary = json.loads((run_folder / "summary.json").read_text())
        summary.pop("seconds")
        states = {}
        for name in ("last", "best"):
            content = torch.load(last.with_name(f"{name}.ckpt"), weights_only=True)
            tensors = content["state_dict"].items()
            states[name] = {key: tensor.tolist() for key, tensor in tensors}
            states[name]["step"] = content["global_step"]
        history = {}
        for path in run_folder.glob("metrics*.csv"):
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    for key in ("train/loss", "val/abs_rel"):
                        if row.get(key):
                            history[f"{key} {row['step']}"] = row[key]
        return {"summary": summary, "history": history, **states}


class Predicting(Case):
    """`predict.py --devices 2` on a folder of small pictures."""

    def __init__(self, folder: Path, pictures: int = PICTURES) -> None:
        self.folder, self.out = folder, folder
        self.files: dict[str, bytes] = {}
        self.entries: dict[str, Any] = {}
        (folder / "in").mkdir(parents=True)
        rng = np.random.default_rng(0)
        for i in range(pictures):
            size = (40 + i % 3, 56, 3)
            pixels = rng.integers(0, 255, size, dtype=np.uint8)
            cv2.imwrite(str(folder / f"in/{i:03d}.png"), pixels)

    def begin(self, name: str) -> None:
        self.out = self.folder / name

    def processes(self) -> list[Process]:
        args = [str(self.folder / "in"), "--model", "models/weights/tiny_rooms"]
        args += ["--output", str(self.out), "--formats", "png", "npy", "color"]
        args += ["--size", "42x28", "--batch-size", "4", "--workers", "1"]
        return pair(predict, [*args, "--accelerator", "cpu", "--devices", "2"])

    def keep_reference(self) -> None:
        self.files, self.entries = self._outputs(), self._claimed()

    def wrong(self, *, ended: bool) -> list[str]:
        outputs, claimed = self._outputs(), self._claimed()
        found = broken(self.out) if self.out.exists() else []
        for name, content in outputs.items():
            if not same(content, self.files[name], Path(name).suffix):
                found.append(f"another {name}")
        for name, entry in claimed.items():
            if not _close(entry, self.entries[name]):
                found.append(f"another entry of {name}")
            gone = [n for n in entry["outputs"] if n not in outputs]
            found += [f"{n} is claimed and not there" for n in gone]
        if ended:
            found += [f"{n} is lost" for n in self.files.keys() - outputs.keys()]
            found += [f"{n} is lost" for n in self.entries.keys() - claimed.keys()]
            found += leftovers(self.out)
            left = [path.name for path in self.out.glob(".predictions.*")]
            found += [f"{name} is left over" for name in left]
        elif (work := len(self._whole(outputs) - claimed.keys())) > 4:
            found.append(f"{work} pictures are done and not noted; 4 threads write")
        return found

    def state(self) -> str:
        return f"{len(self._claimed())} of {len(self.entries)} pictures noted"

    def _whole(self, outputs: dict[str, bytes]) -> set[str]:
        """Pictures all of whose files are there."""
        entries = self.entries.items()
        return {name for name, e in entries if set(e["outputs"]) <= outputs.keys()}

    def _outputs(self) -> dict[str, bytes]:
        found = files_of(self.out) if self.out.exists() else []
        pictures = (path for path in found if "predictions." not in path.name)
        return {p.relative_to(self.out).as_posix(): p.read_bytes() for p in pictures}

    def _claimed(self) -> dict[str, Any]:
        """Entries by picture, without what differs from run to run."""
        found: dict[str, Any] = {}
        ledger = self.out / "predictions.json"
        if ledger.is_file():
            found |= json.loads(ledger.read_text())["files"]
        for journal in sorted(self.out.glob(".predictions.*.jsonl")):
            for line in journal.read_bytes().split(b"\n")[1:-1]:
                content = json.loads(line)
                found[content["name"]] = content["entry"]
        for entry in found.values():
            entry.pop("seconds")
        return found


def _close(entry: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Equal, depths up to float32 rounding as in `same`."""
    return entry.keys() == expected.keys() and all(
        math.isclose(value, expected[key], rel_tol=1e-5)
        if isinstance(value, float)
        else value == expected[key]
        for key, value in entry.items()
    )


class Exporting(Case):
    """`predict.py --export`, one form."""

    def __init__(self, folder: Path, checkpoint: Path, form: str) -> None:
        self.folder, self.out = folder, folder
        self.checkpoint, self.form = checkpoint, form
        self.files: dict[str, bytes] = {}
        folder.mkdir(parents=True)

    def begin(self, name: str) -> None:
        self.out = self.folder / name / "export"

    def processes(self) -> list[Process]:
        args = ["--model", str(self.checkpoint), "--export", str(self.out)]
        return [Process(predict, [*args, "--export-format", self.form])]

    def keep_reference(self) -> None:
        self.files = self._files()

    def wrong(self, *, ended: bool) -> list[str]:
        found = broken(self.out.parent)
        files = self._files()
        # The folder appears in one step: it is not there, or is whole.
        if files or ended:
            found += [f"{name} is lost" for name in self.files.keys() - files.keys()]
            for name in files:
                if files[name] != self.files.get(name):
                    found.append(f"another {name}")
        if ended:
            found += leftovers(self.out.parent)
        return found

    def state(self) -> str:
        return "whole" if self.complete() else "nothing there"

    def complete(self) -> bool:
        return self.out.exists()

    def _files(self) -> dict[str, bytes]:
        found = files_of(self.out) if self.out.exists() else []
        return {p.relative_to(self.out).as_posix(): p.read_bytes() for p in found}


def lora_checkpoint(folder: Path) -> Path:
    """A checkpoint that every form can be written from."""
    config, log = recipe(folder, "LoRA", 1), folder / "log"
    code, _ = run([Process(train, fit(config, folder))], log, None)
    assert code == 0, log.read_text()
    return folder / "runs/small/version_0/checkpoints/last.ckpt"
