"""Predicting very many small pictures: time and memory against how many are done.

    python -m benchmarks.many_pictures --pictures 20000 --ledger 100000

First the ledger alone: what noting, reading at the start and folding at the end take.
Then predict.py on small pictures, a random tiny network, 28x28 px in
and 16-bit PNGs out: a row of the table is the time per picture since the last row and
the resident memory of the main process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from app.prediction.ledger import Ledger
from benchmarks.stopwatch import machine, memory_mib
from models.artefacts.merged import save_network
from models.networks import DepthNetwork, NetworkSpec

REPO = Path(__file__).parents[1]
ROWS = 20
HEADER = {"model": "m", "max_depth": 10.0, "png_units_per_metre": 1000}


def ledger_alone(count: int) -> None:
    """Time and memory of every part of the ledger's work."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = [f"folder/{i:06d}.jpg" for i in range(count)]
        (folder / "folder").mkdir()
        for name in names:
            (folder / f"{name}.depth.png").touch()
        ledger, step = Ledger(folder, HEADER), count // 5
        began, memory = time.perf_counter(), memory_mib("VmRSS")
        for number, name in enumerate(names, 1):
            ledger.note(
                name,
                {
                    "source": f"/photographs/{name}",
                    "formats": ["png"],
                    "outputs": [f"{name}.depth.png"],
                    "error": "",
                    "seconds": 0.0123,
                    "size": [640, 480],
                    "depth_min": 1.2345678806304932,
                    "depth_median": 3.2345678806304932,
                    "depth_max": 9.2345678806304932,
                    "intrinsics": None,
                },
            )
            if number % step == 0:
                each = (time.perf_counter() - began) / step
                grown = memory_mib("VmRSS") - memory
                print(f"{number:7d} noted: {1e6 * each:5.1f} us each, {grown:+.1f} MiB")
                began = time.perf_counter()
        parts: dict[str, Callable[[], object]] = {
            "read at the start (journal)": lambda: Ledger(folder, HEADER).done(
                ("png",)
            ),
            "fold": ledger.close,
            "read at the start (folded)": lambda: Ledger(folder, HEADER).done(("png",)),
        }
        for what, part in parts.items():
            began, memory = time.perf_counter(), memory_mib("VmRSS")
            part()
            took, grown = time.perf_counter() - began, memory_mib("VmRSS") - memory
            print(f"{what}: {took:.2f} s, {grown:+.1f} MiB", flush=True)


def predictions(count: int, options: list[str]) -> None:
    """Run predict.py and look at it while it works."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        network = DepthNetwork(NetworkSpec("tiny", "v2", "metric", 10.0))
        save_network(network, root / "model", {"image_size": [28, 28]})
        (root / "in").mkdir()
        rng = np.random.default_rng(0)
        picture = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
        for i in range(count):
            (root / f"in/{i:06d}.jpg").write_bytes(jpeg)
        command = [sys.executable, str(REPO / "predict.py"), str(root / "in")]
        command += ["--model", str(root / "model"), "--output", str(root / "out")]
        command += ["--formats", "png", "--accelerator", "cpu", "--devices", "1"]
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        watch(process, root / "out", count)
        said = process.communicate()[0].decode().splitlines()
        assert process.returncode == 0, said
        print(f"all of it: {time.perf_counter() - began:.0f} s; {said[-1]}")
        files = json.loads((root / "out/predictions.json").read_text())["files"]
        assert len(files) == count


def watch(process: subprocess.Popen[bytes], out: Path, count: int) -> None:
    """Print a row whenever another part of the pictures is done."""
    journal = out / ".predictions.1.0.jsonl"
    done, place, row = 0, 0, 0
    since, before = 0.0, 0
    while process.poll() is None:
        time.sleep(0.05)
        if not journal.is_file():
            continue
        with journal.open("rb") as file:
            file.seek(place)
            content = file.read()
        place += len(content)
        done += content.count(b"\n") - (done == 0 and bool(content))
        if since == 0.0:
            since, before = time.perf_counter(), done
        if done >= (row + 1) * count / ROWS:
            now = time.perf_counter()
            ms = 1e3 * (now - since) / max(done - before, 1)
            memory = memory_mib("VmRSS", process.pid)
            print(f"{done:7d} done: {ms:6.2f} ms each, {memory:.0f} MiB", flush=True)
            since, before, row = now, done, row + 1


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.many_pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--ledger", type=int, default=100_000)
    parser.add_argument("--batch-size", default="32")
    options = parser.parse_args()
    print(json.dumps(machine(on_cuda=False), indent=1))
    torch.manual_seed(0)
    ledger_alone(options.ledger)
    predictions(options.pictures, ["--batch-size", options.batch_size])


if __name__ == "__main__":
    main()
