"""From files to a listening service, and its orderly end."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.prediction.choice import Choice
from app.prediction.model import computed
from app.prediction.options import Source
from app.prediction.several import has_several
from app.prediction.several import opened as adapters_of
from app.quiet import quiet
from app.serving.app import create_app
from app.serving.folder_watch import FolderWatch
from app.serving.metrics import Metrics
from app.serving.options import Limits, Secrets, Serving
from app.serving.service import DepthService
from app.serving.shelf import Shelf
from datamodules.errors import DataError
from models.artefacts.engines import check_engine
from models.artefacts.form import Asked
from models.artefacts.opening import open_model
from models.opening_bank import open_bank, open_router

HEAD_S = 10.0
"""In which the head of a request must have come."""


def serve(
    source: Source,
    serving: Serving,
    limits: Limits,
    secrets: Secrets,
    page: Callable[[FastAPI, DepthService], FastAPI] = lambda app, service: app,
) -> None:
    """Listen until SIGTERM or Ctrl-C; those who were let in are answered first.

    Args:
        source: Which network.
        serving: Where, and how.
        limits: What is refused.
        secrets: Who may ask, and who may change adapters.
        page: Puts more on top of the application.

    Raises:
        UserError: If the port is taken, or the model cannot be opened.
    """
    quiet()
    with _listening(serving) as listening:
        service, watch = open_service(source, serving, limits)
        app = page(create_app(service, watch, limits, secrets), service)
        config = uvicorn.Config(
            app,
            http=HeadInTime,
            timeout_graceful_shutdown=int(limits.deadline) + 1,
            log_level="info",
        )
        host, port = listening.getsockname()[:2]
        print(f"serving {source.model} at http://{host}:{port}", flush=True)
        uvicorn.Server(config).run([listening])


def open_service(
    source: Source, serving: Serving, limits: Limits
) -> tuple[DepthService, FolderWatch | None]:
    """A service that is not yet started, and the folder of its adapters.

    Raises:
        UserError: As `open_shelf`.
    """
    shelf = open_shelf(source, serving)
    service = DepthService(shelf, serving, limits, Metrics())
    if serving.adapters is None:
        return service, None
    folder = Path(serving.adapters).expanduser()
    return service, FolderWatch(shelf, folder, serving.rescan)


def open_shelf(source: Source, serving: Serving) -> Shelf:
    """The network, and its adapters, of a command line.

    Raises:
        UserError: Saying what does not go together, or cannot be opened.
    """
    prediction = serving.prediction()
    choice = Choice(adapters=serving.adapters)
    if not has_several(source, choice):
        check_engine(prediction.engine)
        opened = open_model(source.model, Asked(source.network, source.base))
        return Shelf.of_network(computed(opened.for_pictures(), prediction), prediction)
    several = adapters_of(source, choice, prediction)
    base = None if serving.adapters is None else source.model
    bank = open_bank(several, base)
    router = None if several.router is None else open_router(several, bank)
    return Shelf.of_bank(bank, router, source.model, prediction)


class HeadInTime(H11Protocol):
    """Closes connections on which no whole head of a request comes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(HEAD_S, self._close_without_request)

    def _close_without_request(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def _listening(serving: Serving) -> socket.socket:
    """The port, taken before anything is loaded."""
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((serving.host, serving.port))
    except OSError as error:
        found.close()
        raise DataError(
            f"--host {serving.host} --port {serving.port} cannot be listened at "
            f"({error.strerror or error}); give another"
        ) from None
    return found
