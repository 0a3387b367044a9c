"""What a service refuses, each with its status and one sentence."""

import io
import socket
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from app.serving.options import Limits, Secrets
from models.artefacts.merged import save_network
from tests.app.serving.server import served
from tests.conftest import random_tiny


def png_header(cols, rows):
    """The first bytes of a PNG that says it is this large."""
    head = b"IHDR" + struct.pack(">IIBBBBB", cols, rows, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    data = b"IDAT" + zlib.compress(b"")
    chunks += struct.pack(">I", len(data) - 4) + data
    chunks += struct.pack(">I", zlib.crc32(data))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + chunks + end


JPEG = io.BytesIO()
Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(JPEG, "JPEG")
CASES = {
    "junk": (b"no picture at all" * 9, {}, {}, 422, "picture"),
    "empty": (b"", {}, {}, 400, "empty"),
    "cut off": (JPEG.getvalue()[:-40], {}, {}, 422, "copy it again"),
    "too long": (b"0" * 20_000_000, {}, {}, 413, "16 MB"),
    "too large": (png_header(30000, 30000), {}, {}, 413, "30000x30000"),
    "51 Mpx": (png_header(10_000, 5_100), {}, {}, 413, "50 million"),
    "a type": (b"{}", {}, {"content-type": "application/json"}, 415, "image/png"),
    "an adapter": (b"", {"adapter": "attic"}, {}, 404, "rooms, streets"),
    "a path": (b"", {"adapter": "../rooms"}, {}, 404, "rooms, streets"),
    "a format": (b"", {"format": "bmp"}, {}, 422, "'png'"),
    "fov": (b"", {"fov": "200"}, {}, 422, "fov=200"),
    "fx": (b"", {"fx": "wide"}, {}, 422, "fx=wide"),
    "a parameter": (b"", {"focal": "5"}, {}, 400, "fx"),
    "a parameter twice": (b"", {"fov": ["50", "60"]}, {}, 400, "fov is given 2 times"),
    "two choices": (JPEG, {"adapter": "rooms", "route": "1"}, {}, 400, "give one"),
    "no camera": (JPEG, {"format": "ply"}, {}, 422, "give fx"),
    "a form": (b"--x", {}, {"content-type": "multipart/form-data"}, 400, "boundary"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused__with_a_status_and_a_sentence(client, case):
    content, asked, headers, status, words = CASES[case]
    content = content.getvalue() if isinstance(content, io.BytesIO) else content
    answer = client.post("/v1/depth", params=asked, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("fields", [("a", "a"), ("a", "b")])
def test_several_pictures__are_refused(client, picture, fields):
    """Whether they share the name of a field, or each has its own."""
    sent = [(field, ("a.png", picture)) for field in fields]
    answer = client.post("/v1/depth", files=sent)
    assert answer.status_code == 400
    assert answer.json()["error"] == "the form has 2 files; send one picture"


def test_field_that_is_no_file__is_refused(client, picture):
    """An option in a form would have no effect."""
    options, sent = {"adapter": "streets"}, {"file": ("a.png", picture)}
    answer = client.post("/v1/depth", files=sent, data=options)
    assert answer.status_code == 400
    assert "'adapter' is no file" in answer.json()["error"]
    assert "query" in answer.json()["error"]
    alone = client.post("/v1/depth", files=sent, params=options)
    assert (alone.status_code, alone.headers["x-adapter"]) == (200, "streets")


def test_chunks__are_refused_while_they_come(client):
    """Without a length in the head, no more is read than is allowed."""

    def endless():
        for _ in range(10_000):
            yield b"0" * 100_000

    answer = client.post("/v1/depth", content=endless())
    assert answer.status_code == 413


def test_unknown_path_and_method__are_one_sentence(client):
    assert client.get("/v2/depth").status_code == 404
    answer = client.get("/v1/depth")
    assert answer.status_code == 405
    assert "/openapi.json" in answer.json()["error"]


def test_keys__are_asked_for(root, picture):
    secrets = Secrets(("one", "two"), "boss")
    with served(root / "base", secrets=secrets) as client:
        for key, status in ((None, 401), ("three", 401), ("two", 200)):
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            answer = client.post("/v1/depth", content=picture, headers=headers)
            assert answer.status_code == status
            assert client.get("/v1/models", headers=headers).status_code == status
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert client.delete("/v1/adapters/rooms").status_code == 401
        boss = {"Authorization": "Bearer boss"}
        alone = client.delete("/v1/adapters/rooms", headers=boss)
        assert alone.status_code == 409
        assert "--adapters" in alone.json()["error"]
        answer = client.post(
            "/v1/depth?adapter=rooms",
            content=picture,
            headers={"Authorization": "Bearer one"},
        )
        assert answer.status_code == 404
        assert "one network alone" in answer.json()["error"]
    assert "boss" not in repr(secrets)
    assert "two" not in repr(secrets)


def test_glb__without_trimesh_is_refused(client, picture, monkeypatch):
    monkeypatch.setattr("app.serving.pictures.find_spec", lambda name: None)
    answer = client.post("/v1/depth?format=glb&fov=60", content=picture)
    assert answer.status_code == 422
    assert "lacks trimesh" in answer.json()["error"]


def test_relative_network__has_no_metres(tmp_path, picture):
    save_network(random_tiny("relative", None), tmp_path / "relative")
    with served(tmp_path / "relative") as client:
        answer = client.post("/v1/depth", content=picture)
        assert answer.status_code == 422
        assert "npy" in answer.json()["error"]
        told = client.post("/v1/depth?format=npy", content=picture)
        assert told.status_code == 200
        assert told.headers["x-unit"] == "disparity"


def test_slow_clients__are_cut_off(root, picture):
    """A body that trickles is 504 at the deadline; a head that does is closed."""
    with served(root / "base", limits=Limits(deadline=1.5)) as client:
        address = ("127.0.0.1", client.port)
        with socket.create_connection(address) as slow:
            head = f"POST /v1/depth HTTP/1.1\r\nHost: x\r\nContent-Length: {10**6}"
            slow.sendall(f"{head}\r\n\r\n".encode())
            began = time.monotonic()
            for _ in range(4):
                slow.sendall(b"0")
                time.sleep(0.2)
            told = slow.recv(1000)
            assert b" 504 " in told
            assert time.monotonic() - began < 5
        assert client.post("/v1/depth", content=picture).status_code == 200


def test_head__that_does_not_come_is_closed(root, monkeypatch):
    monkeypatch.setattr("app.serving.server.HEAD_S", 0.3)
    with (
        served(root / "base") as client,
        socket.create_connection(("127.0.0.1", client.port)) as slow,
    ):
        slow.sendall(b"POST /v1/depth HTTP/1.1\r\nHost:")
        slow.settimeout(5)
        assert slow.recv(100) == b""
