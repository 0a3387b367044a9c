"""Bodies of requests, read with an eye on how much comes, and for how long."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from app.serving.refusals import RefusedError

R = TypeVar("R")
RAW = (
    *("image/", "application/octet-stream"),
    "application/x-www-form-urlencoded",  # what curl and others say unless told
)
"""What the type of a bare picture may begin with; its content says what it is."""
FILES = 4
"""In a form, at most: an adapter has two."""


@dataclass(frozen=True)
class Limit:
    """How much of a body is taken."""

    length: int
    """In bytes."""
    remedy: str
    """What to do about a longer one."""


@dataclass(frozen=True)
class Part:
    """A file that was sent."""

    name: str
    content: bytes


class Gone(Exception):  # noqa: N818 - nobody is left to tell of an error
    """The client has hung up."""


async def read_picture(request: Request, limit: Limit) -> Part:
    """The one picture of a request: its raw body, or the only file of a form.

    Raises:
        RefusedError: 400 for none or several, 413 for too much, 415 for another type.
        Gone: If the client hung up.
    """
    kind = _kind(request)
    if kind == "multipart/form-data":
        files = await read_form(request, limit)
        if len(files) != 1:
            raise RefusedError(
                400, f"the form has {len(files)} files; send one picture"
            )
        found = files[0]
    elif not kind or kind.startswith(RAW):
        raw = bytearray()
        async for chunk in _stream(request, limit):
            raw += chunk
        found = Part("the picture", bytes(raw))
    else:
        raise RefusedError(
            415,
            f"{kind} is no type of a picture; send image/jpeg, image/png, another "
            "image/ or application/octet-stream as the body, or one file of a "
            "multipart/form-data",
        )
    if not found.content:
        raise RefusedError(400, "the body is empty; send a picture")
    return found


async def read_form(request: Request, limit: Limit) -> list[Part]:
    """The files of a multipart form, whatever their fields are called.

    Raises:
        RefusedError: 400 if it is none or has anything else, 413 for too much, 415 for
            another type.
        Gone: If the client hung up.
    """
    if _kind(request) != "multipart/form-data":
        raise RefusedError(
            415, f"{_kind(request) or 'no type'} is no multipart/form-data; send one"
        )
    stream = _stream(request, limit)
    parser = MultiPartParser(
        request.headers, stream, max_files=FILES, max_fields=FILES, max_part_size=2**16
    )
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError, KeyError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise RefusedError(400, f"the form cannot be read ({reason})") from None
    try:
        files = []
        for field, value in form.multi_items():
            if not isinstance(value, UploadFile):
                raise RefusedError(
                    400,
                    f"the form's field {field!r} is no file; send files alone, options "
                    "go in the query",
                )
            files.append(Part(value.filename or field, await value.read()))
        return files
    finally:
        await form.close()


async def read_small(request: Request, limit: Limit) -> bytes:
    """A whole body of any type.

    Raises:
        RefusedError: 413 for too much.
        Gone: If the client hung up.
    """
    return b"".join([chunk async for chunk in _stream(request, limit)])


async def unless_gone(request: Request, answer: Awaitable[R]) -> R:
    """Wait for an answer as long as somebody waits for it.

    The body must have been read.

    Raises:
        Gone: If the client hung up; the answer is cancelled.
    """
    task = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return await task
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
        await asyncio.gather(gone, task, return_exceptions=True)


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _stream(request: Request, limit: Limit) -> AsyncGenerator[bytes, None]:
    """The body, no more of it than is allowed."""
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > limit.length:
        raise _too_long(limit)
    length = 0
    try:
        async for chunk in request.stream():
            length += len(chunk)
            if length > limit.length:
                raise _too_long(limit)
            yield chunk
    except ClientDisconnect:
        raise Gone from None


def _too_long(limit: Limit) -> RefusedError:
    return RefusedError(
        413, f"the body is longer than {limit.length / 1e6:g} MB; {limit.remedy}"
    )


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
