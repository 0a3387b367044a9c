"""`make docs-check`: run every command of the pages, where nothing has to be fetched.

    python -m docs.check [PAGE ...]

The commands run in a copy of the checkout in which the pages' names mean something:
FRAMES, PHOTOGRAPHS and the folders of each camera are rendered (`recipes.py`), BASE is
the packaged network, `best.ckpt`, `MIXED.ckpt` and `adapters` come from short runs. So
that minutes are enough, training is cut to a few batches and takes the packaged network
in place of one that would be downloaded. What needs a download, an account or a cluster
(`commands.NEEDS`) is only parsed, and said.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from docs.commands import ROOT, Command, blocks, commands, pages
from docs.recipes import FOLDERS

QUICK = (
    *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"),
    *("--trainer.limit_val_batches", "1", "--trainer.accelerator", "cpu"),
)
SMALL = (
    *("--model.weights", "tiny-rooms", "--model.size", "tiny"),
    *("--data.image_size", "[126, 168]", "--data.batch_size", "2"),
    *("--data.num_workers", "0"),
)
SEARCH = ("--trainer.max_epochs", "3", "--trainer.limit_val_batches", "1")
"""Of the demo, as many steps as its search for rates takes."""
RUN = "runs/folder/version_0/checkpoints/best.ckpt"
READY_S, COMMAND_S = 120, 600
PARSED = {
    "predict": "from app.prediction.parser import parse; parse(sys.argv[1:])",
    "serve": "from app.serving.options import parse; parse(sys.argv[1:])",
}
CLUSTER = (
    "from app.serving.options import parse; from app.serving.cluster import _parse; "
    "parse(_parse(sys.argv[1:])[1])"
)


class Failed(Exception):  # noqa: N818 - the word that is printed
    """A command of a page does not do what the page says."""


class Place:
    """A copy of the checkout in which the pages' names are files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1"}
        self.server: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Write everything that the pages speak of."""
        for path in ROOT.iterdir():
            if path.name not in ("runs", ".git", "predictions") and path.name[0] != ".":
                (self.folder / path.name).symlink_to(path)
        for name, make in FOLDERS.items():
            make(self.folder / name)
        photo = self.folder / "PHOTOGRAPHS/0000.jpg"
        shutil.copy(photo, self.folder / "photo.jpg")
        for name in ("shots", "LARGE"):
            (self.folder / name).mkdir()
            shutil.copy(photo, self.folder / name / "a.jpg")
        (self.folder / "list.txt").write_text("PHOTOGRAPHS/0001.jpg\n")
        points = "image,x,y,depth\nPHOTOGRAPHS/0001.jpg,40,60,2.5\n"
        (self.folder / "points.csv").write_text(points)
        (self.folder / "of.csv").write_text(
            "image,adapter\n0000.jpg,indoor\n0001.jpg,\n"
        )
        picture = cv2.imread(str(photo))
        assert picture is not None
        code = cv2.VideoWriter.fourcc(*"mp4v")
        clip = cv2.VideoWriter(str(self.folder / "clip.mp4"), code, 5, (168, 126))
        for shift in range(3):
            clip.write(np.roll(picture, shift, 1))
        clip.release()
        (self.folder / "BASE").symlink_to(ROOT / "models/weights/tiny_rooms")
        train = ["python", "train.py", "fit", "--trainer.default_root_dir", "prepared"]
        self.run([*train, "--config", "configs/demo.yaml", *QUICK])
        # Its sources as the pages call them.
        mixed = (ROOT / "configs/demo_mixed.yaml").read_text()
        for name, ours in (("rooms", "indoor"), ("streets", "outdoor")):
            mixed = re.sub(rf"^( +){name}:", rf"\1{ours}:", mixed, flags=re.M)
        (self.folder / "demo_mixed.yaml").write_text(mixed)
        self.run([*train, "--config", "demo_mixed.yaml", *QUICK])
        runs = self.folder / "prepared/runs"
        for name, run in (("best.ckpt", "demo"), ("MIXED.ckpt", "demo_mixed")):
            (self.folder / name).symlink_to(
                runs / run / "version_0/checkpoints/last.ckpt"
            )
        out = ["--export", "adapters", "--export-format", "adapter"]
        self.run(["python", "predict.py", "--model", "MIXED.ckpt", *out])
        made = self.folder / "adapters/indoor"
        shutil.copytree(made, self.folder / "adapters/kitchen")
        shutil.copytree(made, self.folder / "kitchen")

    def run(self, words: Sequence[str]) -> str:
        """Run words to their end.

        Raises:
            Failed: If they fail, with the end of what they said.
        """
        words = [sys.executable if word == "python" else word for word in words]
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        if done.returncode:
            raise Failed((done.stderr or done.stdout).strip()[-600:])
        return done.stdout

    def serve(self, words: Sequence[str]) -> None:
        """Start a service, in place of the one that runs, and wait until it is ready.

        Raises:
            Failed: If that does not come.
        """
        self.stop()
        words = [sys.executable if word == "python" else word for word in words]
        self.server = subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "service.log").open("wb"),
        )
        port = words[words.index("--port") + 1] if "--port" in words else "8000"
        until = time.monotonic() + READY_S
        while time.monotonic() < until and self.server.poll() is None:
            with suppress(OSError):
                address = f"http://127.0.0.1:{port}/readyz"
                with urllib.request.urlopen(address, timeout=5) as answer:
                    if answer.status == 200:
                        return
            time.sleep(0.5)
        raise Failed((self.folder / "service.log").read_text()[-600:])

    def stop(self) -> None:
        """End the service that runs."""
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            self.server.wait(60)
            self.server = None


def checked(command: Command, place: Place) -> str:
    """Run or parse a command, and say which.

    Raises:
        Failed: If it does not work.
    """
    text = re.sub(r"\[[^\]]*\]$", "", command.text)
    text = text.replace("--model ...", "--model best.ckpt")
    if not (place.folder / RUN).is_file():  # its page is not among those that are run
        text = text.replace(f"--model {RUN}", "--model best.ckpt")
    command = Command(command.page, command.line, text)
    words = command.words
    if command.kind == "install":
        for extra in re.findall(r"\.\[([\w,]+)\]", text):
            check_extras(extra.split(","))
        return "extras exist"
    if command.needs is not None:
        if command.kind == "train":
            place.run([*words, "--print_config"])
        elif command.kind in PARSED:
            words = words[words.index("python") :]
            start = 2 if command.kind == "predict" else 3
            own = CLUSTER if words[2].endswith("cluster") else PARSED[command.kind]
            place.run(["python", "-c", f"import sys; {own}", *words[start:]])
        return f"parsed; running needs {command.needs}"
    if command.kind == "train":
        if words[2] == "fit":
            words += SEARCH if "--rate_finder.steps" in words else QUICK
        if "configs/folder.yaml" in words:
            taken = {word for word in words if word.startswith("--")}
            pairs = zip(SMALL[::2], SMALL[1::2], strict=True)
            words += [w for pair in pairs if pair[0] not in taken for w in pair]
        place.run(words)
    elif command.kind == "predict":
        if "--export" not in words:
            words += ["--output", fresh(place)]
        elif (place.folder / words[at := words.index("--export") + 1]).is_dir():
            # What the page makes here is of the place's own, made before.
            words[at] = fresh(place)
        place.run(words)
    elif command.kind == "serve":
        place.serve(words)
    elif command.kind == "set":
        name, value = words[1].split("=")
        place.environment[name] = value
    else:
        if command.kind == "ask":
            text = text.replace("curl ", "curl --fail-with-body -sS ", 1)
        place.run(["bash", "-c", text])
    return "ran"


def fresh(place: Place) -> str:
    """The name of a folder that is not there: another model would be refused in one."""
    return tempfile.mktemp(prefix="out-", dir=place.folder)


def check_extras(names: Sequence[str]) -> None:
    """Refuse extras that pyproject.toml does not have.

    Raises:
        Failed: Naming the first one.
    """
    text = (ROOT / "pyproject.toml").read_text()
    for name in names:
        if not re.search(rf"^{name} = \[", text, re.M):
            raise Failed(f"pyproject.toml has no extra {name}")


def check_python(page: Path, place: Place) -> list[str]:
    """Compile every Python block; run those of the recipes for cameras."""
    said = []
    for line, block in blocks(page, "python"):
        compile(block, f"{page.name}:{line}", "exec")
        if page.name == "your_camera.md":
            place.run(["python", "-c", block])
            said.append(f"  {page.name}:{line}  python  ran")
    return said


def main() -> None:
    """Check the pages that are named, or all."""
    parser = argparse.ArgumentParser("python -m docs.check", description=__doc__)
    parser.add_argument("pages", nargs="*", help="names such as frames.md")
    wanted = parser.parse_args().pages
    failures = 0
    with tempfile.TemporaryDirectory(prefix="lava-docs-") as scratch:
        place = Place(Path(scratch))
        place.prepare()
        for page in pages():
            if wanted and page.name not in wanted:
                continue
            for command in commands(page):
                began = time.monotonic()
                try:
                    verdict = checked(command, place)
                except (Failed, subprocess.TimeoutExpired, ValueError) as error:
                    failures += 1
                    verdict = f"FAILED: {error}"
                seconds = time.monotonic() - began
                print(f"{page.name}:{command.line} {seconds:5.1f} s  {command.text}")
                print(f"    {verdict}", flush=True)
            for line in check_python(page, place):
                print(line)
            place.stop()
    if failures:
        sys.exit(f"{failures} commands failed")


if __name__ == "__main__":
    main()
