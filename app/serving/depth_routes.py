"""`POST /v1/depth`: a picture in, its depth out."""

import asyncio
import time
from dataclasses import replace
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute

from app.prediction.camera import Camera
from app.prediction.options import Format
from app.serving.access import Access
from app.serving.body import Gone, Limit, read_picture, unless_gone
from app.serving.options import Limits
from app.serving.pictures import Answer, Wanted
from app.serving.refusals import RefusedError, busy, late
from app.serving.service import DepthService

Pixels = Annotated[
    float | None,
    Query(gt=0, allow_inf_nan=False, description="Pixels of the picture."),
]
Degrees = Annotated[
    float | None, Query(gt=0, lt=180, description="Horizontal field of view.")
]
Place = Annotated[
    float | None,
    Query(allow_inf_nan=False, description="Principal point, pixels."),
]
HUNG_UP = 499
"""Nginx's number for clients that did not wait: it is counted, and nobody reads it."""


def depth_routes(service: DepthService, limits: Limits, access: Access) -> APIRouter:
    """The route of requests for depth."""
    router = APIRouter()
    longest = Limit(
        limits.max_bytes,
        "send a smaller picture, or start the service with a larger --max-mb",
    )
    running = 0

    @router.post("/v1/depth", dependencies=[Depends(access.ask)])
    async def depth(
        request: Request,
        adapter: str | None = None,
        format: Literal[Format, "json"] = "png",  # noqa: A002 - its name in a URL
        route: bool = False,
        fx: Pixels = None,
        fy: Pixels = None,
        cx: Place = None,
        cy: Place = None,
        fov: Degrees = None,
        assume_fov: Degrees = None,
    ) -> Response:
        """Depth of the picture in the body, as `predict.py` writes it."""
        nonlocal running
        _check_names(request)
        due = asyncio.get_running_loop().time() + limits.deadline
        if running >= limits.max_requests:
            raise busy(1.0)
        if sum(told is not None for told in (fx, fov, assume_fov)) > 1:
            raise RefusedError(
                400, "fx, fov and assume_fov say one thing twice; give one of them"
            )
        camera = Camera(fx, fy, cx, cy, fov, assume_fov)
        kind: Any = None if format == "json" else format
        wanted = Wanted(kind, camera, adapter, route=route)
        service.check(wanted)
        running += 1
        try:
            async with asyncio.timeout_at(due):
                began = time.monotonic()
                part = await read_picture(request, longest)
                service.metrics.taken("read")(time.monotonic() - began)
                asked = replace(wanted, filename=part.name)
                answer = await unless_gone(
                    request, service.depth(part.content, asked, due)
                )
        except TimeoutError:
            raise late(limits.deadline, "picture") from None
        except Gone:
            return Response(status_code=HUNG_UP)
        finally:
            running -= 1
        request.state.adapter = answer.about["adapter"]
        return _response(answer)

    return router


def _check_names(request: Request) -> None:
    route: APIRoute = request.scope["route"]
    known = [parameter.alias for parameter in route.dependant.query_params]
    strange = [name for name in request.query_params if name not in known]
    if strange:
        raise RefusedError(
            400,
            f"there is no parameter {strange[0]!r}; there are {', '.join(known)}",
        )
    given = [name for name, _ in request.query_params.multi_items()]
    twice = [name for name in known if given.count(name) > 1]
    if twice:
        raise RefusedError(
            400, f"{twice[0]} is given {given.count(twice[0])} times; give it once"
        )


def _response(answer: Answer) -> Response:
    about = answer.about
    headers = {
        "X-Depth-Min": repr(about["depth_min"]),
        "X-Depth-Median": repr(about["depth_median"]),
        "X-Depth-Max": repr(about["depth_max"]),
        "X-Unit": about["unit"],
        # Headers are Latin-1, and names need not be.
        "X-Adapter": quote(about["adapter"] or ""),
        "X-Generation": str(about["generation"]),
    }
    if "confidence" in about:
        headers["X-Confidence"] = f"{about['confidence']:.6f}"
    if "png_units_per_metre" in about:
        headers["X-Units-Per-Metre"] = str(about["png_units_per_metre"])
    if about["intrinsics"] is not None:
        headers["X-Intrinsics"] = ",".join(f"{n:.9g}" for n in about["intrinsics"])
        headers["X-Focal-Is-Assumed"] = str(about["focal_is_assumed"]).lower()
    if answer.content is None:
        return JSONResponse(about, headers=headers)
    headers["Content-Length"] = str(answer.length)
    return StreamingResponse(
        answer.chunks(), media_type=answer.media_type, headers=headers
    )
