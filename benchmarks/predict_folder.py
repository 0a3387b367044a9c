"""predict.py beside `transformers.pipeline("depth-estimation")` on one folder.

    python -m benchmarks.predict_folder --images 200 --json out.json

The same network (Depth Anything S with random weights), machine and input size: a
folder of JPEGs of mixed sizes; ours with `--size WxH`, theirs on the merged export with
a processor of that size that does not keep the shape. Both read the files, predict at
each picture's own size, and write a 16-bit PNG. Each runs in a process of its own, in
turn, `--rounds` times; start-up (imports, loading) is timed apart by a run on one
picture. Peak memory is the maximum resident size of a process.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import torch

from benchmarks.pictures import write_folder
from benchmarks.stopwatch import machine, write_json
from models.artefacts import form_named
from models.artefacts.form import ExportOptions, Opened, save
from models.networks import DepthNetwork, NetworkSpec

REPO = Path(__file__).parents[1]
SIZES = ((480, 640), (375, 1242), (720, 1280), (600, 400), (1080, 1920))
THEIRS = """
import sys
from pathlib import Path
import cv2, numpy as np, torch, transformers
model, folder, out, rows, cols, device = sys.argv[1:]
pipe = transformers.pipeline("depth-estimation", model=model, device=device)
processor = pipe.image_processor
processor.size = {"height": int(rows), "width": int(cols)}
processor.keep_aspect_ratio = False
paths = sorted(Path(folder).rglob("*.jpg"))
Path(out).mkdir()
for path, result in zip(paths, pipe([str(p) for p in paths], batch_size=8)):
    metres = result["predicted_depth"].squeeze().cpu().numpy()
    cv2.imwrite(f"{out}/{path.name}.png", np.rint(metres * 1000).astype(np.uint16))
"""


@dataclass(frozen=True)
class Row:
    """One way of doing it."""

    name: str
    start_s: float
    """One picture, everything included."""
    images_per_s: float
    """Of the rest of the folder."""
    peak_mib: float


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of a process and its children so far."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=REPO)
    seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def by_engine(command: list[str], engine: str) -> list[str]:
    """The command with an engine, and an output of its own."""
    out = command.index("--output") + 1
    own = [*command[:out], f"{command[out]}{engine}", *command[out + 1 :]]
    return [*own, "--engine", engine]


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.predict_folder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", default="S", choices=["tiny", "S", "B", "L"])
    parser.add_argument("--size", type=int, nargs=2, default=(266, 266))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--engines", nargs="*", default=[], help="Of predict.py, too.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    where = machine("transformers", on_cuda=options.device == "cuda")
    accelerator = {"cpu": "cpu", "cuda": "gpu"}[options.device]
    print(json.dumps(where, indent=1))
    torch.manual_seed(0)
    rows, cols = options.size
    network = DepthNetwork(NetworkSpec(options.network, "v2", "metric", 10.0)).eval()
    seconds: dict[tuple[str, str], list[float]] = {}
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for form in ("depth-anything", "transformers"):
            opened = Opened(network, None, (rows, cols), "random")
            save(form_named(form), opened, root / form, ExportOptions((rows, cols)))
        for name, count in (("one", 1), ("many", options.images + 1)):
            write_folder(root / name, islice(cycle(SIZES), count))
        for engine in options.engines:
            # Its program is made once, and is no part of what a run takes.
            warm = [sys.executable, "predict.py", str(root / "one"), "--formats", "npy"]
            warm += ["--model", str(root / "depth-anything"), "--engine", engine]
            timed([*warm, "--output", str(root / f"warm{engine}")])
        for number in range(options.rounds):
            for name in ("one", "many"):
                ours = [sys.executable, "predict.py", str(root / name)]
                ours += ["--model", str(root / "depth-anything")]
                ours += ["--output", str(root / f"ours{name}{number}")]
                ours += ["--size", f"{cols}x{rows}", "--formats", "png"]
                ours += ["--workers", str(options.workers)]
                ours += ["--devices", "1", "--accelerator", accelerator]
                theirs = [sys.executable, "-c", THEIRS, str(root / "transformers")]
                theirs += [str(root / name), str(root / f"theirs{name}{number}")]
                theirs += [str(rows), str(cols), options.device]
                # The first to grow shows in the children's maximum: ours goes first.
                for who, command in {
                    "predict.py": ours,
                    **{e: by_engine(ours, e) for e in options.engines},
                    "pipeline": theirs,
                }.items():
                    took, peak = timed(command)
                    seconds.setdefault((who, name), []).append(took)
                    peaks.setdefault(who, peak)
                    if number == 0 and name == "many":
                        peaks[who] = peak
    table = []
    for who in ("predict.py", *options.engines, "pipeline"):
        start = statistics.median(seconds[who, "one"])
        whole = statistics.median(seconds[who, "many"])
        rate = options.images / (whole - start)
        table.append(Row(who, start, rate, peaks[who]))
        print(table[-1])
    for row in table[:-1]:
        ratio = row.images_per_s / table[-1].images_per_s
        print(f"ratio of images/s, {row.name}: {ratio:.2f}")
    if options.json is not None:
        rows_of = [asdict(row) for row in table]
        write_json(options.json, {"machine": where, "rows": rows_of})


if __name__ == "__main__":
    main()
