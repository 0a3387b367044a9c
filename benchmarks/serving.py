"""The service beside predict.py: pictures per second, latency of one client, memory.

    python -m benchmarks.serving --images 64 --json out.json

Depth Anything S with random weights, JPEGs of 640x480, `--size 518`, 16-bit PNGs. Both
run as processes of their own, in turn, `--rounds` times. Pictures per second of
predict.py are those of the folder without its start-up (a run on one picture); of the
service, those of 16 clients at once. Latency is one client's, picture after picture,
beside the network's own time for that picture (`lava_stage_seconds{stage="network"}`).
Peak memory is the largest resident size of the main process; predict.py has two more
that read pictures.
"""

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import torch

from benchmarks.pictures import write_folder
from benchmarks.stopwatch import machine, memory_mib, write_json
from models.artefacts.merged import save_network
from models.networks import DepthNetwork, NetworkSpec

REPO = Path(__file__).parents[1]
CLIENTS = 16
SIZE = (480, 640)
STAGE = re.compile(r'lava_stage_seconds_(sum|count)\{stage="network"\} ([\d.e+-]+)')


def predicted(
    root: Path, name: str, out: str, options: list[str]
) -> tuple[float, float]:
    """Seconds and peak MiB of predict.py on a folder."""
    command = [sys.executable, "predict.py", str(root / name), "--formats", "png"]
    command += ["--output", str(root / out), "--devices", "1", *options]
    began, peak = time.perf_counter(), 0.0
    with subprocess.Popen(
        command,
        cwd=REPO,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        while process.poll() is None:
            try:
                peak = max(peak, memory_mib("VmHWM", process.pid))
            except (OSError, AssertionError):
                break
            time.sleep(0.05)
    assert process.returncode == 0
    return time.perf_counter() - began, peak


@contextmanager
def service(options: list[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A running service, and its port."""
    command = [sys.executable, "-m", "app.serving", "--port", "0", *options]
    with subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        found = re.search(r":(\d+)\s*$", process.stdout.readline())
        assert found
        port = int(found[1])
        while True:
            try:
                if ask(port, "/readyz")[0] == 200:
                    break
            except OSError:
                time.sleep(0.1)
        yield process, port
        process.send_signal(signal.SIGTERM)


def ask(port: int, path: str, content: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of one request."""
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("GET" if content is None else "POST", path, content)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def network_seconds(port: int) -> tuple[float, float]:
    """Sum and count of the network's own time."""
    text = ask(port, "/metrics")[1].decode()
    found = dict(STAGE.findall(text))
    return float(found["sum"]), float(found["count"])


def one_client(port: int, pictures: list[bytes]) -> tuple[list[float], float]:
    """Seconds of each request, and the network's mean."""
    before = network_seconds(port)
    seconds = []
    for content in pictures:
        began = time.perf_counter()
        assert ask(port, "/v1/depth", content)[0] == 200
        seconds.append(time.perf_counter() - began)
    after = network_seconds(port)
    return seconds, (after[0] - before[0]) / (after[1] - before[1])


def many_clients(port: int, pictures: list[bytes]) -> float:
    """Pictures per second."""
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        found = list(pool.map(lambda c: ask(port, "/v1/depth", c)[0], pictures))
    assert set(found) == {200}
    return len(pictures) / (time.perf_counter() - began)


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", default="S", choices=["tiny", "S", "B", "L"])
    parser.add_argument("--size", default="518")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    where = machine("transformers", on_cuda=False)
    print(json.dumps(where, indent=1))
    torch.manual_seed(0)
    network = DepthNetwork(NetworkSpec(asked.network, "v2", "metric", 10.0)).eval()
    rates: dict[str, list[float]] = {"predict.py": [], "service": []}
    peaks: dict[str, list[float]] = {"predict.py": [], "service": []}
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        save_network(network, root / "model")
        write_folder(root / "one", [SIZE])
        write_folder(root / "many", [SIZE] * (asked.images + 1))
        paths = sorted((root / "many").iterdir())[: asked.images]
        pictures = [path.read_bytes() for path in paths]
        options = ["--model", str(root / "model"), "--size", asked.size]
        options += ["--accelerator", "cpu"]
        for number in range(asked.rounds):
            start, _ = predicted(root, "one", f"one{number}", options)
            whole, peak = predicted(root, "many", f"many{number}", options)
            rates["predict.py"].append(asked.images / (whole - start))
            peaks["predict.py"].append(peak)
            with service([*options, "--deadline", "600"]) as (process, port):
                seconds, own = one_client(port, pictures[:20])
                ratios.append(statistics.quantiles(seconds, n=20)[-1] / own)
                rates["service"].append(many_clients(port, pictures))
                peaks["service"].append(memory_mib("VmHWM", process.pid))
            print(rates, peaks, ratios, flush=True)
    rate = {who: statistics.median(found) for who, found in rates.items()}
    peak_of = {who: statistics.median(found) for who, found in peaks.items()}
    found = {
        "pictures_per_s": rate,
        "ratio_of_rates": rate["service"] / rate["predict.py"],
        "p95_over_network": statistics.median(ratios),
        "peak_mib": peak_of,
        "ratio_of_peaks": peak_of["service"] / peak_of["predict.py"],
    }
    print(json.dumps(found, indent=1))
    if asked.json is not None:
        write_json(asked.json, {"machine": where, **found})


if __name__ == "__main__":
    main()
