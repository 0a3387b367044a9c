"""A service that listens on the loopback, in a thread of the test's process."""

import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn

from app.prediction.options import Source
from app.serving.app import create_app
from app.serving.options import Limits, Secrets, Serving
from app.serving.server import HeadInTime, open_service


@contextmanager
def served(model, adapters=None, limits=None, secrets=None, slow_s=0.0, **serving):
    """A client of a service; `client.service` is what it asks.

    Args:
        model: As for `--model`.
        adapters: Likewise.
        limits: Of the service.
        secrets: Likewise.
        slow_s: What every batch takes at least.
        serving: Other options.
    """
    limits, secrets = limits or Limits(), secrets or Secrets()
    folder = None if adapters is None else str(adapters)
    options = Serving(adapters=folder, port=0, accelerator="cpu", **serving)
    service, watch = open_service(Source(str(model)), options, limits)
    if slow_s:
        compute = service.batcher.compute

        def slow(batch):
            time.sleep(slow_s)
            return compute(batch)

        service.batcher.compute = slow
    app = create_app(service, watch, limits, secrets)
    config = uvicorn.Config(
        app,
        port=0,
        http=HeadInTime,
        log_level="warning",
        timeout_graceful_shutdown=int(limits.deadline) + 1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            client.service, client.port = service, port
            yield client
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
