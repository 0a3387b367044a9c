"""How the service is, and what it has."""

from typing import Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse

from app.prediction.model import listed
from app.serving.access import Access
from app.serving.service import DepthService
from app.serving.shelf import Shelved


def state_routes(service: DepthService, access: Access) -> APIRouter:
    """Routes that change nothing."""
    router = APIRouter()
    shelf = service.shelf

    @router.get("/healthz")
    async def healthz() -> Response:
        """Whether the process is alive."""
        return PlainTextResponse("ok\n")

    @router.get("/readyz")
    async def readyz() -> Response:
        """Whether the network is in memory and batches move on."""
        service.check_moving()
        return PlainTextResponse("ok\n")

    @router.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return PlainTextResponse(
            service.metrics.text(), media_type="text/plain; version=0.0.4"
        )

    @router.get("/v1/models", dependencies=[Depends(access.ask)])
    async def models() -> dict[str, Any]:
        """The network, and what it predicts without an adapter."""
        alone = None if shelf.plain is None else said(shelf.plain)
        about = {"source": shelf.source, "sha256": shelf.sha256, "unit": shelf.unit}
        return {
            "models": [{**about, "alone": alone, "router": shelf.router is not None}]
        }

    @router.get("/v1/adapters", dependencies=[Depends(access.ask)])
    async def adapters() -> dict[str, Any]:
        """Every adapter in its present generation."""
        return {"adapters": [said(shelved) for shelved in shelf.all()]}

    return router


def said(shelved: Shelved) -> dict[str, Any]:
    """What others are told of an adapter: nothing of where it lies."""
    given = shelved.given
    return {
        "name": shelved.name,
        "generation": shelved.generation,
        "max_depth": given.max_depth,
        "input_size": listed(given.wanted),
        "canonical_focal_px": given.canonical_px,
    }
