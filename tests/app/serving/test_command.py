"""The command as a process: how it begins, how it ends, what it says to mistakes."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.serving.__main__ import main
from app.serving.options import Secrets

ROOT = Path(__file__).parents[3]


def start(root, *more, module="app.serving", **environment):
    fixed = ["--model", str(root / "base"), "--port", "0", "--accelerator", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", module, *fixed, *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, process.stderr.read()
    return process, found[0]


def ready(url):
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{url}/readyz") as answer:
                return answer.status == 200
        except OSError:
            time.sleep(0.1)
    return False


def test_sigterm__answers_those_who_were_let_in(root, picture):
    slow = ["--size", "518", "--deadline", "60", "--batch-size", "1"]
    process, url = start(root, *slow, LAVA_API_KEYS="secret-key")
    assert ready(url)
    request = urllib.request.Request(
        f"{url}/v1/depth", picture, {"Authorization": "Bearer secret-key"}
    )

    def asked(_):
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, len(answer.read())

    with ThreadPoolExecutor(6) as pool:
        tasks = [pool.submit(asked, i) for i in range(6)]
        metrics = ""
        # All six are in: one is computed, the others wait.
        for _ in range(100):
            with urllib.request.urlopen(f"{url}/metrics") as answer:
                metrics = answer.read().decode()
            if 'lava_stage_seconds_count{stage="read"} 6.0' in metrics:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        answers = [task.result() for task in tasks]
    assert [status for status, _ in answers] == [200] * 6
    assert process.wait(30) == -signal.SIGTERM or process.returncode == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{url}/healthz")
    assert "secret-key" not in "".join(process.communicate())


WRONG = {
    "no model": ([], "--model"),
    "a model that is not there": (["--model", "nowhere.ckpt"], "nowhere.ckpt"),
    "a port": (["--port", "70000"], "--port 70000"),
    "a deadline": (["--deadline", "0"], "--deadline 0"),
    "endless": (["--deadline", "inf"], "--deadline inf must be above 0 and below"),
    "megabytes": (["--max-mb", "inf"], "--max-mb inf"),
    "more of them": (["--max-mb", "1e305"], "--max-mb 1e+305"),
    "an adapter's": (["--max-adapter-mb", "inf"], "--max-adapter-mb inf"),
    "megapixels": (["--max-megapixels", "inf"], "--max-megapixels inf"),
    "no number": (["--deadline", "nan"], "--deadline nan"),
    "rescan": (["--adapters", "here", "--rescan", "nan"], "--rescan nan"),
    "adapters": (["--adapters", "nowhere"], "nowhere"),
    "an option": (["--tta"], "--tta"),
    "batch": (["--batch-size", "0"], "--batch-size 0"),
    "threads": (["--workers-decode", "0"], "--workers-decode 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistake__is_one_line(root, capsys, case):
    given, words = WRONG[case]
    if case != "no model" and "--model" not in given:
        given = ["--model", str(root / "base"), *given]
    with pytest.raises(SystemExit) as stopped:
        main(given)
    assert stopped.value.code != 0
    told = capsys.readouterr().err
    assert words in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("secret", ["", " , ", "\n"])
@pytest.mark.parametrize("name", ["LAVA_API_KEYS", "LAVA_ADMIN_TOKEN"])
def test_empty_secret__is_no_open_door(root, capsys, monkeypatch, name, secret):
    monkeypatch.setenv(name, secret)
    with pytest.raises(SystemExit):
        main(["--model", str(root / "base")])
    assert f"{name} is set, but empty" in capsys.readouterr().err


def test_secrets__are_without_the_space_around_them(monkeypatch):
    """Which a file or a shell leaves there, and no header can bring."""
    monkeypatch.setenv("LAVA_API_KEYS", " one, two\n")
    monkeypatch.setenv("LAVA_ADMIN_TOKEN", " boss\n")
    found = Secrets.of_environment()
    assert (found.keys, found.admin) == (("one", "two"), "boss")


def test_taken_port__is_one_line(root, client, capsys):
    with pytest.raises(SystemExit):
        main(["--model", str(root / "base"), "--port", str(client.port)])
    assert f"--port {client.port} cannot be listened at" in capsys.readouterr().err
