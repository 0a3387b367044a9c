"""Fetch one large file: resumed, checked, and there whole or not at all."""

import hashlib
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from datamodules.errors import DataError

CHUNK_BYTES = 1 << 20
ATTEMPTS = 5
TIMEOUT_S = 30


def fetch(
    url: str, path: Path, *, md5: str, size_bytes: int, wait_s: float = 2
) -> None:
    """Download to `path`, unless it is there.

    What has arrived stays in `<path>.part`, from where a later call goes on.

    Args:
        url: http or https.
        path: Where the complete file goes.
        md5: Of the whole file.
        size_bytes: Likewise.
        wait_s: Before the second attempt; doubled before each further one.

    Raises:
        DataError: If it cannot be had, or is not the expected file.
    """
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(wait_s * 2 ** (attempt - 1))
        try:
            _go_on(url, part, size_bytes)
        except (OSError, urllib.error.URLError) as error:
            reason = str(error)
        if part.exists() and part.stat().st_size >= size_bytes:
            break
    else:
        have = part.stat().st_size if part.exists() else 0
        raise DataError(
            f"{url} could not be fetched ({reason or 'the connection ended early'}); "
            f"{have:,} of {size_bytes:,} bytes are in {part}: run again to go on, or "
            f"put the file at {path}"
        )
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        part.unlink()
        raise DataError(
            f"{url} gave a file with MD5 {found}, not {md5}; it was deleted: try "
            "another mirror"
        )
    part.replace(path)


def _go_on(url: str, part: Path, size_bytes: int) -> None:
    """One connection: from where `part` ends to wherever it breaks off."""
    have = part.stat().st_size if part.exists() else 0
    if have >= size_bytes:
        return
    # Only what a person configured is opened: http or https.
    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url} is no http or https address")
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        # A server that ignores the range starts from the beginning.
        resumed = answer.status == 206
        bar = tqdm(
            total=size_bytes,
            initial=have if resumed else 0,
            desc=part.stem,
            unit="B",
            unit_scale=True,
        )
        with part.open("ab" if resumed else "wb") as file, bar:
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
