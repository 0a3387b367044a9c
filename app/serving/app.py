"""The service as an application of FastAPI."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from app.serving.access import Access
from app.serving.admin_routes import admin_routes
from app.serving.depth_routes import depth_routes
from app.serving.folder_watch import FolderWatch
from app.serving.middleware import Watch
from app.serving.options import Limits, Secrets
from app.serving.refusals import RefusedError
from app.serving.service import DepthService
from app.serving.state_routes import state_routes


def create_app(
    service: DepthService,
    watch: FolderWatch | None,
    limits: Limits,
    secrets: Secrets,
    *,
    shared: bool = False,
) -> FastAPI:
    """The application around a service, which it starts and stops.

    Args:
        service: Not yet started.
        watch: The folder of its adapters.
        limits: What is refused.
        secrets: Who may ask, and who may change adapters.
        shared: Whether it is one of several, whose adapters are those of the folder.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        looking = asyncio.create_task(watch.run()) if watch is not None else None
        yield
        if looking is not None:
            looking.cancel()
        await service.stop()

    # Its pages of documentation load scripts from elsewhere; /openapi.json does not.
    app = FastAPI(title="LAVA Depth", lifespan=lifespan, docs_url=None, redoc_url=None)
    access = Access(secrets)
    app.include_router(depth_routes(service, limits, access))
    app.include_router(state_routes(service, access))
    if not shared:
        folder = None if watch is None else watch.folder
        app.include_router(admin_routes(service.shelf, folder, limits, access))
    app.add_exception_handler(RefusedError, _problem)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _wrong_parameter)
    app.add_exception_handler(Exception, _fault)
    app.add_middleware(Watch, metrics=service.metrics)
    return app


async def _problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusedError)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(round(error.retry_after_s), 1))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _said(request, error.status, error.sentence, headers)


async def _of_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    sentence = f"{method} {path}: {error.detail}; /openapi.json has what there is"
    return _said(request, error.status_code, sentence, dict(error.headers or {}))


async def _wrong_parameter(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name, given = first["loc"][-1], first.get("input")
    return _said(request, 422, f"{name}={given}: {first['msg']}")


async def _fault(request: Request, error: Exception) -> JSONResponse:
    return _said(request, 500, f"the service failed ({type(error).__name__})")


def _said(
    request: Request, status: int, sentence: str, headers: dict[str, Any] | None = None
) -> JSONResponse:
    content = {"error": " ".join(sentence.split()), "request_id": request.state.id}
    return JSONResponse(content, status, headers)
