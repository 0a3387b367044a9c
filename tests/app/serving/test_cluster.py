"""Several replicas on Ray Serve: the same answers, also after one has died."""

import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from app.prediction.options import Source
from app.serving.cluster import Replicas, start
from app.serving.options import Limits, Serving
from datamodules.errors import DataError
from tests.app.serving.server import served
from tests.app.serving.test_adapters import close

ROOT = Path(__file__).parents[3]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_replica__killed_under_load_and_answers_go_on(root, picture, monkeypatch):
    ray = pytest.importorskip("ray")
    from ray import serve

    with served(root / "base", root / "adapters") as alone:
        asked = {"adapter": "rooms", "format": "npy"}
        expected = alone.post("/v1/depth", params=asked, content=picture).content
        refused = alone.post("/v1/depth?adapter=attic", content=picture)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    environment = {"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        runtime_env=environment,
        _node_ip_address="127.0.0.1",
    )
    try:
        port = free_port()
        options = Serving(str(root / "adapters"), port=port, accelerator="cpu")
        source = Source(str(root / "base"))
        start(source, options, Limits(), Replicas(2, 2, cpus=1), blocking=False)
        url = f"http://127.0.0.1:{port}"

        def ask(adapter="rooms"):
            asked = {"adapter": adapter, "format": "npy"}
            return httpx.post(
                f"{url}/v1/depth", params=asked, content=picture, timeout=60
            )

        assert ask().content == expected
        told = ask("attic")
        assert told.status_code == refused.status_code
        assert told.json()["error"] == refused.json()["error"]
        assert httpx.get(f"{url}/readyz").status_code == 200
        found, stop = [], threading.Event()

        def asking():
            while not stop.is_set():
                found.append((time.monotonic(), ask()))

        threads = [threading.Thread(target=asking) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(3)
        listed = ray.util.list_named_actors(all_namespaces=True)
        replicas = [a for a in listed if "depth" in a["name"]]
        assert len(replicas) == 2, listed
        ray.kill(ray.get_actor(replicas[0]["name"], namespace="serve"))
        killed = time.monotonic()
        time.sleep(8)
        stop.set()
        for thread in threads:
            thread.join()
        later = [answer for when, answer in found if when > killed + 3]
        assert later
        assert {answer.status_code for answer in later} == {200}
        good = [answer for _, answer in found if answer.status_code == 200]
        assert all(close(answer.content, expected) for answer in good)
        failed = [a.status_code for _, a in found if a.status_code != 200]
        # Those that were in the replica that died.
        assert len(failed) <= 8, failed
    finally:
        serve.shutdown()
        ray.shutdown()


def test_replicas__that_cannot_be_are_refused():
    with pytest.raises(DataError, match="--min-replicas 3 and --max-replicas 2"):
        Replicas(3, 2)
