"""Bad bodies, however many and however large, leave no memory behind."""

import re
import signal
from pathlib import Path

import httpx
import pytest

from tests.app.serving.test_command import ready, start
from tests.app.serving.test_refused import CASES, JPEG

BAD = ("junk", "empty", "cut off", "too long", "too large", "a type", "a form")
ROUNDS = 12
MIB = 2**20
status = Path("/proc/self/status")
linux = pytest.mark.skipif(not status.is_file(), reason="reads /proc")


def memory(pid: int, what: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.search(rf"{what}:\s+(\d+) kB", text)[1])


@linux
def test_memory__is_flat_under_bad_bodies(root, picture):
    process, url = start(root)
    try:
        assert ready(url)
        with httpx.Client(base_url=url, timeout=60) as client:

            def one_round():
                for name in BAD:
                    content, asked, headers, code, _ = CASES[name]
                    body = content.getvalue() if content is JPEG else content
                    answer = client.post(
                        "/v1/depth", params=asked, content=body, headers=headers
                    )
                    assert answer.status_code == code, name
                assert client.post("/v1/depth", content=picture).status_code == 200

            for _ in range(3):
                one_round()
            before = memory(process.pid, "VmRSS")
            for _ in range(ROUNDS):
                one_round()
            grown = memory(process.pid, "VmRSS") - before
            peak = memory(process.pid, "VmHWM") - before
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    # A body held by each round would be 240 MB; allocators keep a little.
    assert grown < 8 * MIB, grown / MIB
    # One body of at most 16 MB at a time, and as much again where it is joined.
    assert peak < 48 * MIB, peak / MIB
