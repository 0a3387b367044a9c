"""The page: as its own client asks it, and, where there is a browser, as people see it.

It runs as a process of its own: Gradio leaves event loops open that warn in others.
"""

import base64
import json
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from models.artefacts.merged import save_network
from tests.app.serving.test_command import ready, start
from tests.conftest import random_tiny

pytestmark = pytest.mark.skipif(
    find_spec("gradio") is None, reason="gradio is not installed"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ALONE, ROUTED = "(none: the network alone)", "(the router chooses)"


@pytest.fixture(scope="module")
def url(root):
    given = ["--adapters", str(root / "adapters")]
    process, found = start(root, *given, module="app.serving.demo")
    with process:
        assert ready(found)
        yield found
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def ask_page(url, picture, adapter, fov):
    """What the page's buttons get: its values, or its words where it fails."""
    with httpx.Client(base_url=f"{url}/gradio_api", timeout=60) as client:
        sent = {"files": (picture.name, picture.read_bytes())}
        (path,) = client.post("/upload", files=sent).json()
        file = {
            "path": path,
            "orig_name": picture.name,
            "meta": {"_type": "gradio.FileData"},
        }
        asked = {"data": [file, adapter, fov]}
        number = client.post("/call/predicted", json=asked).json()["event_id"]
        told = client.get(f"/call/predicted/{number}").text.strip()
        event, data = told.split("\n")[-2:]
        found = json.loads(data.removeprefix("data: "))
        return found if event == "event: complete" else found["error"]


@pytest.fixture
def asked(url, root):
    """Asks the page of the two adapters about a picture."""

    def ask(name, adapter, fov):
        return ask_page(url, root / "pictures" / name, adapter, fov)

    return ask


def test_page__shows_what_the_service_answers(url, asked, root):
    content = (root / "pictures/c.jpg").read_bytes()
    asked_of = {"adapter": "streets", "format": "npy"}
    answer = httpx.post(f"{url}/v1/depth", params=asked_of, content=content)
    expected = answer.content
    compare, grid, scene, files, words = asked("c.jpg", "streets", 50)
    assert len(compare) == 2
    shown = {file["path"].rpartition(".")[2]: file["path"] for file in files}
    assert Path(shown["npy"]).read_bytes() == expected
    units = cv2.imread(shown["png"], cv2.IMREAD_UNCHANGED)
    assert units.dtype == np.uint16
    said = json.loads(grid)
    depths = np.frombuffer(base64.b64decode(said["depths"]), "<f4")
    depths = depths.reshape(said["rows"], said["cols"])
    np.testing.assert_array_equal(depths, np.load(shown["npy"]))
    assert said["unit"] == "m"
    assert scene["path"].endswith(".glb")
    assert "adapter streets" in words
    assert "(assumed)" not in words


def test_router_and_network_alone__can_be_chosen(url, asked):
    config = httpx.get(f"{url}/config").json()
    choices = [c["props"].get("choices") for c in config["components"]]
    names = [ALONE, "rooms", "streets", ROUTED]
    assert [[name, name] for name in names] in choices
    words = asked("a.png", ALONE, 0)[-1]
    assert "adapter" not in words
    assert "(assumed)" in words
    assert "router's choice" in asked("a.png", ROUTED, 0)[-1]


def test_error__is_a_sentence(asked, root):
    (root / "pictures/bad.png").write_bytes(b"no picture")
    try:
        told = asked("bad.png", "rooms", 0)
    finally:
        (root / "pictures/bad.png").unlink()
    assert told.startswith("bad.png is text")
    assert told.endswith(".")


def test_far_network__is_shown_without_a_png(root, tmp_path):
    """Depths up to 400 m fit no 16-bit PNG, and everything else of the page."""
    save_network(random_tiny("metric", 400.0), tmp_path / "base")
    process, found = start(tmp_path, module="app.serving.demo")
    with process:
        assert ready(found)
        told = ask_page(found, root / "pictures/c.jpg", ALONE, 50)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert not isinstance(told, str), told
    compare, _, scene, files, _ = told
    assert len(compare) == 2
    assert scene["path"].endswith(".glb")
    assert [Path(file["path"]).suffix for file in files] == [".npy"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_browser__sees_depth_metres_and_a_scene(url, root, tmp_path):
    """A picture in, values under the pointer, a 3-D canvas, a file; nothing outside."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = {}
    with playwright.sync_playwright() as browsers:
        flags = ["--no-sandbox", "--use-angle=swiftshader"]
        flags += ["--enable-unsafe-swiftshader"]
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=flags)
        seen = browser.new_page()
        outside = found["outside"] = []
        seen.on("request", lambda r: outside.append(r.url))
        seen.goto(url)
        given = seen.locator("input[type=file]").first
        given.set_input_files(str(root / "pictures/c.jpg"))
        seen.wait_for_selector("#compare img")
        seen.wait_for_selector("#scene canvas")
        seen.wait_for_timeout(1000)
        frame = seen.locator("#compare img").first.bounding_box()
        middle = (
            frame["x"] + frame["width"] / 2,
            frame["y"] + frame["height"] / 2,
        )
        seen.mouse.move(*middle)
        seen.wait_for_function(
            "document.querySelector('#meter').innerText.trim().endsWith(' m')"
        )
        found["metres"] = seen.locator("#meter").inner_text()
        with seen.expect_download() as download:
            seen.locator('a[href*="depth.npy"]').first.click()
        found["file"] = download.value.suggested_filename
        (tmp_path / "bad.png").write_bytes(b"no picture")
        seen.reload()
        seen.wait_for_selector("text=Photograph")
        given = seen.locator("input[type=file]").first
        given.set_input_files(str(tmp_path / "bad.png"))
        seen.wait_for_selector("text=/bad.png .* (begin|picture|decoded)/")
        browser.close()
    strange = [u for u in found["outside"] if not u.startswith((url, "data:", "blob:"))]
    assert strange == []
    assert float(found["metres"].split()[0]) > 0
    assert found["file"].endswith((".png", ".npy"))
