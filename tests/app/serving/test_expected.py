"""What work is expected to take, and that no slow piece of it shuts others out."""

import asyncio
import sys
import time
from importlib.util import find_spec

import pytest

from app.serving import service
from app.serving.batcher import Batcher
from app.serving.options import Limits
from app.serving.pace import Pace
from app.serving.pool import Pool
from app.serving.refusals import RefusedError
from tests.app.serving.server import served
from tests.app.serving.test_load import ask

LONG_S, SLOW_S = 20.0, 0.3


def due_in(seconds):
    return asyncio.get_running_loop().time() + seconds


def test_slow_batch__at_most_doubles_what_is_expected():
    pace = Pace()
    pace.measure((1000, 0.01), (4000, 0.04))
    pace.learn(1000, 40.0)
    assert pace.seconds(1000) == pytest.approx(0.02)
    for _ in range(20):
        pace.learn(1000, 0.1)
    assert pace.seconds(1000) == pytest.approx(0.1, rel=0.01)


def test_slow_piece__at_most_doubles_what_is_expected():
    async def seconds():
        pool = Pool("decode", 1, lambda seconds: None)
        pool.seconds = 0.001
        await pool.run(lambda: time.sleep(SLOW_S), due_in(LONG_S))
        pool.stop()
        return pool.seconds

    assert asyncio.run(seconds()) == pytest.approx(0.002)


def test_idle_pool__takes_what_it_expects_to_be_late():
    """And one that has work does not."""

    async def answers():
        pool = Pool("decode", 1, lambda seconds: None)
        pool.seconds = LONG_S
        first = asyncio.create_task(
            pool.run(lambda: time.sleep(SLOW_S), due_in(SLOW_S))
        )
        await asyncio.sleep(0)
        with pytest.raises(RefusedError):
            await pool.run(lambda: 1, due_in(SLOW_S))
        await first
        found = await pool.run(lambda: 2, due_in(SLOW_S))
        pool.stop()
        return found, pool.seconds

    found, seconds = asyncio.run(answers())
    assert found == 2
    assert seconds < LONG_S


def test_idle_batcher__takes_what_it_expects_to_be_late():
    """And one that has work does not."""

    def compute(items):
        time.sleep(SLOW_S if items == ["slow"] else 0.001)
        return items

    async def answers():
        batcher = Batcher(compute, 8, 10**9)
        batcher.start()
        await batcher.measure("fast", 1000)
        batcher.after_s = LONG_S

        def submit(item):
            return batcher.submit("key", item, 1000, due_in(SLOW_S))

        first = asyncio.create_task(submit("slow"))
        for _ in range(3):
            await asyncio.sleep(0)
            with pytest.raises(RefusedError):
                await submit("fast")
        found = await first, await submit("fast")
        await batcher.stop()
        return found

    assert asyncio.run(answers()) == ("slow", "fast")


def test_slow_answer__does_not_shut_others_out(root, picture, monkeypatch):
    """What one answer took longer than the deadline, the next is not charged with."""
    limits = Limits(deadline=1.0)
    with served(root / "base", limits=limits) as client:
        encode = service.encode
        slow = [limits.deadline + 0.1]

        def encode_slowly(*args):
            time.sleep(slow.pop() if slow else 0)
            return encode(*args)

        monkeypatch.setattr(service, "encode", encode_slowly)
        assert ask(client, picture).status == 504
        time.sleep(0.2)
        assert [ask(client, picture).status for _ in range(3)] == [200] * 3


@pytest.mark.skipif(find_spec("trimesh") is None, reason="trimesh is not installed")
def test_trimesh__is_there_before_the_first_request(root, monkeypatch):
    monkeypatch.delitem(sys.modules, "trimesh", raising=False)
    with served(root / "base"):
        assert "trimesh" in sys.modules
