"""Loading and removing adapters while others are served."""

import asyncio
import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from app.serving.access import Access
from app.serving.body import Gone, Limit, Part, read_form, read_small
from app.serving.folder_watch import PAIRS
from app.serving.options import Limits
from app.serving.refusals import RefusedError, late
from app.serving.shelf import Shelf, Shelved
from app.serving.state_routes import said
from datamodules.errors import UserError
from models.artefacts.depth_adapter import DepthAdapter
from models.artefacts.opening import open_adapter
from models.artefacts.published.identity import ADAPTER_FILES

WANTED = 'send {"folder": NAME} as JSON, or the two files as a form'
NAMED = Limit(10_000, WANTED)
"""Of a body that names a folder."""


def admin_routes(
    shelf: Shelf, folder: Path | None, limits: Limits, access: Access
) -> APIRouter:
    """The routes that change adapters.

    Args:
        shelf: Where they are.
        folder: Below which alone adapters are read.
        limits: Of an upload, likewise.
        access: Who may.
    """
    router = APIRouter(dependencies=[Depends(access.change)])

    @router.put("/v1/adapters/{name}")
    async def put(name: str, request: Request) -> JSONResponse:
        """Load an adapter: two files of a form, or `{"folder": NAME}` as JSON.

        What is loaded by upload is there until the service ends.
        """
        shelf.check_name(name)
        try:
            async with asyncio.timeout(limits.deadline):
                found = await _loaded(request, name, shelf, folder, limits)
        except TimeoutError:
            raise late(limits.deadline, "adapter") from None
        except Gone:
            raise RefusedError(400, "the upload was not complete") from None
        return JSONResponse(said(found))

    @router.delete("/v1/adapters/{name}")
    async def delete(name: str) -> JSONResponse:
        """Remove an adapter; requests that have it are answered with it."""
        return JSONResponse(said(shelf.remove(name)))

    return router


async def _loaded(
    request: Request, name: str, shelf: Shelf, folder: Path | None, limits: Limits
) -> Shelved:
    kind = request.headers.get("content-type", "")
    if kind.startswith("application/json"):
        content = await read_small(request, NAMED)
        opened = partial(_open_below, folder, _folder_name(content))
    else:
        parts = await read_form(
            request,
            Limit(
                limits.max_adapter_bytes,
                "send a smaller adapter, or start the service with a larger "
                "--max-adapter-mb",
            ),
        )
        opened = partial(_open_upload, parts)
    # Reading and checking takes a while, in which others are answered.
    return await asyncio.to_thread(lambda: shelf.put(name, opened()))


def _folder_name(content: bytes) -> str:
    try:
        said = json.loads(content)
    except ValueError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("folder"), str):
        raise RefusedError(400, WANTED)
    return str(said["folder"])


def _open_below(folder: Path | None, name: str) -> DepthAdapter:
    if folder is None:
        raise RefusedError(
            409, "this service has one network alone; start it with --adapters DIR"
        )
    path = (folder / name).resolve()
    if ".." in Path(name).parts or folder.resolve() not in path.parents:
        raise RefusedError(
            400, f"{name!r} is not below the service's folder of adapters; name one"
        )
    if not any((path / kind).is_file() for kind in ADAPTER_FILES):
        raise RefusedError(422, f"there is no adapter {name!r} in the service's folder")
    return _opened(path, name)


def _open_upload(parts: list[Part]) -> DepthAdapter:
    sent = sorted(part.name for part in parts)
    if sent not in map(sorted, PAIRS):
        wanted = " or ".join(" and ".join(pair) for pair in PAIRS)
        raise RefusedError(
            400, f"the form has {', '.join(sent) or 'no files'}; send {wanted}"
        )
    with tempfile.TemporaryDirectory(prefix="lava-") as scratch:
        path = Path(scratch)
        for part in parts:
            (path / part.name).write_bytes(part.content)
        return _opened(path, "the upload")


def _opened(path: Path, called: str) -> DepthAdapter:
    try:
        return replace(open_adapter(path), source=called)
    except UserError as error:
        raise RefusedError(422, str(error).replace(str(path), called)) from None
