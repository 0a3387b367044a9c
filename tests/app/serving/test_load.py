"""Many at once: nobody is lost, nobody waits in vain, nobody suffers for another."""

import io
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection
from urllib.parse import urlencode

import numpy as np

from app.serving.options import Limits
from tests.app.serving.server import served

SLOW_S = 0.3


def at_once(count, work):
    """Results of `work(i)`, all begun together."""
    gate = threading.Barrier(count)

    def waiting(i):
        gate.wait()
        return work(i)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(waiting, range(count)))


@dataclass
class Told:
    status: int
    headers: Message
    content: bytes


def ask(client, content, **asked):
    """A request on a connection of its own; httpx takes 0.1 s to make one."""
    connection = HTTPConnection("127.0.0.1", client.port, timeout=60)
    connection.request("POST", f"/v1/depth?{urlencode(asked)}", content)
    answer = connection.getresponse()
    found = Told(answer.status, answer.headers, answer.read())
    connection.close()
    return found


def test_mixed_batches__equal_each_picture_alone(root, client):
    """200 requests of three adapters: within 1e-5 of the range, one unit of a PNG."""
    names, sent = ["rooms", "streets", None], sorted(root.glob("pictures/*"))
    contents = [path.read_bytes() for path in sent]

    def asked(i):
        name = names[i % 3]
        more = {} if name is None else {"adapter": name}
        return i, ask(client, contents[i % 4], format="npy", **more)

    alone = {i: asked(i)[1].content for i in range(12)}
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(asked, range(200)))
    sizes = client.service.metrics.batch_size
    assert sizes._sum.get() > client.service.metrics.stage.labels("network")._sum.get()
    for i, answer in found:
        assert answer.status == 200, answer.content
        assert answer.headers["x-adapter"] == (names[i % 3] or "")
        depth = np.load(io.BytesIO(answer.content))
        expected = np.load(io.BytesIO(alone[i % 12]))
        reach = 80 if names[i % 3] == "streets" else 10
        np.testing.assert_allclose(depth, expected, rtol=0, atol=1e-5 * reach)


def test_bad_picture__fails_alone(root, picture):
    with served(root / "base", slow_s=SLOW_S) as client:
        contents = [picture] * 7 + [b"no picture"]
        found = at_once(8, lambda i: ask(client, contents[i]).status)
    assert found == [200] * 7 + [422]


def test_failing_batch__is_computed_one_by_one(root, picture):
    """What one picture does to the network, its neighbours do not suffer."""
    with served(root / "base", slow_s=SLOW_S) as client:
        compute = client.service.batcher.compute

        def failing(batch):
            if any(one.size == (60, 44) for one in batch):
                raise RuntimeError("out of memory")
            return compute(batch)

        client.service.batcher.compute = failing
        bad = (root / "pictures/c.jpg").read_bytes()
        client.service.shelf.plain.given.__dict__["wanted"] = (28, 42)
        contents = [picture] * 7 + [bad]
        found = at_once(8, lambda i: ask(client, contents[i]))
    assert [answer.status for answer in found] == [200] * 7 + [500]
    assert "out of memory" in found[-1].content.decode()


def test_overload__is_answered_or_refused_within_the_deadline(root, picture):
    limits = Limits(deadline=3.0)
    with served(root / "base", limits=limits, slow_s=0.8, batch_size=4) as client:

        def timed(i):
            began = time.monotonic()
            answer = ask(client, picture)
            return answer, time.monotonic() - began

        found = at_once(40, timed)
        again = ask(client, picture)
    statuses = [answer.status for answer, _ in found]
    assert set(statuses) == {200, 503}
    # Twelve on a machine that does nothing else; on one that is busy, fewer.
    assert 1 <= statuses.count(200) <= 16
    assert max(seconds for _, seconds in found) < limits.deadline + 0.5
    for answer, _ in found:
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) >= 1
            assert "try again" in answer.content.decode()
    assert again.status == 200


def test_clients_that_hung_up__are_not_computed(root, picture):
    with served(root / "base", slow_s=SLOW_S, batch_size=1) as client:
        head = f"POST /v1/depth HTTP/1.1\r\nHost: x\r\nContent-Length: {len(picture)}"
        request = f"{head}\r\n\r\n".encode() + picture
        gone = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(24)]
        for one in gone:
            one.sendall(request)
        time.sleep(SLOW_S / 2)
        for one in gone:
            one.close()
        began = time.monotonic()
        assert ask(client, picture).status == 200
        # The batch that was running, and its own: not twenty-four.
        assert time.monotonic() - began < 4 * SLOW_S
        text = client.get("/metrics").text
    assert 'lava_requests_total{adapter="",status="499"} 24.0' in text


def test_stuck_network__is_not_ready(root, picture):
    with served(root / "base", limits=Limits(deadline=0.5)) as client:
        assert client.get("/readyz").status_code == 200
        gate = threading.Event()
        compute = client.service.batcher.compute
        client.service.batcher.compute = lambda b: (gate.wait(20), compute(b))[1]
        try:
            assert ask(client, picture).status == 504
            time.sleep(0.6)
            answer = client.get("/readyz")
            assert answer.status_code == 503
            assert "more than it should" in answer.json()["error"]
            assert client.get("/healthz").status_code == 200
        finally:
            gate.set()
        time.sleep(0.2)
        assert client.get("/readyz").status_code == 200
