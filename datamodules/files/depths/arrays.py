"""NumPy's files with one depth map: `.npy`, and `.npz` with one array or `depth`."""

import io
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import DataError

_NPY, _ZIP = b"\x93NUMPY", b"PK"
_NAME = "depth"
_BROKEN = (
    *(ValueError, OSError, EOFError, KeyError, TypeError, SyntaxError, MemoryError),
    *(OverflowError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What NumPy and zipfile raise on damaged files."""


def array_of(content: bytes, path: str) -> NDArray[Any]:
    """The array that a file holds, told by its content and not its suffix.

    Args:
        content: The whole file.
        path: For messages.

    Raises:
        DataError: If it is no such file, damaged, has several arrays of which none is
            called `depth`, or holds anything but numbers: nothing is unpickled.
    """
    if not content.startswith((_NPY, _ZIP)):
        raise DataError(
            f"{path} is no NumPy file; write it with numpy.save or numpy.savez"
        )
    try:
        if content.startswith(_NPY):
            array = _loaded(io.BytesIO(content))
        else:
            array = _of_archive(content, path)
    except _BROKEN as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read as a NumPy file ({said})") from None
    if array.dtype.kind not in "iuf":
        raise DataError(
            f"{path} stores {_named(array.dtype)}; depth is one array of whole or real "
            "numbers (int, uint or float of any width)"
        )
    return array


def _loaded(file: io.BytesIO) -> NDArray[Any]:
    """An array, or an empty one of the same type where its elements are objects."""
    version = np.lib.format.read_magic(file)
    header = (
        np.lib.format.read_array_header_1_0(file)
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0(file)
    )
    if header[2].hasobject:
        return np.empty(0, header[2])
    file.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _of_archive(content: bytes, path: str) -> NDArray[Any]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {
            name.removesuffix(".npy"): name
            for name in archive.namelist()
            if name.endswith(".npy")
        }
        chosen = [name for name in members if name.lower() == _NAME]
        if len(members) == 1:
            chosen = list(members)
        if len(chosen) != 1:
            raise DataError(
                f"{path} holds the arrays {', '.join(sorted(members)) or 'none'}; give "
                f"a single one, or call the depth {_NAME!r}"
            )
        return _loaded(io.BytesIO(archive.read(members[chosen[0]])))


def _named(kind: np.dtype[Any]) -> str:
    """A type in a user's words."""
    if kind.names is not None:
        return f"records of {', '.join(kind.names)}"
    if kind.hasobject:
        return "Python objects (dtype object)"
    return f"dtype {kind.name}"
