"""The page: a picture, its depth under a slider, metres under the pointer, in 3-D."""

import asyncio
import base64
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray

from app.prediction.camera import Camera
from app.prediction.options import Format
from app.serving.pictures import Answer, Wanted, unfit
from app.serving.refusals import RefusedError
from app.serving.service import DepthService
from app.serving.shelf import Shelf
from datamodules.errors import DataError
from datamodules.files.images.decoding import read_image

ALONE, ROUTED = "(none: the network alone)", "(the router chooses)"
GRID_PX = 256
"""Longer side of the depths that the browser looks values up in."""
RESULTS = "results-"
KEPT_S = 3600
"""For which results can be downloaded."""
SHOWN: tuple[Format, ...] = ("color", "npy", "png", "glb")
"""What the page shows and hands out, as far as what predicts can be written so."""
ASSUMED_FOV_DEG = 60.0
POINTER = """
const where = document.querySelector('#compare');
const box = element.querySelector('.metres');
let grid = null;
const read = () => {
  if (!props.value) { grid = null; box.textContent = box.dataset.hint; return; }
  const given = JSON.parse(props.value);
  const bytes = Uint8Array.from(atob(given.depths), c => c.charCodeAt(0));
  grid = {...given, depths: new Float32Array(bytes.buffer)};
  box.textContent = box.dataset.hint;
};
where.addEventListener('pointermove', event => {
  const image = where.querySelector('img');
  if (!grid || !image) return;
  const frame = image.getBoundingClientRect();
  const zoom = Math.min(frame.width / grid.cols, frame.height / grid.rows);
  const left = frame.left + (frame.width - zoom * grid.cols) / 2;
  const top = frame.top + (frame.height - zoom * grid.rows) / 2;
  const col = Math.floor((event.clientX - left) / zoom);
  const row = Math.floor((event.clientY - top) / zoom);
  if (col < 0 || row < 0 || col >= grid.cols || row >= grid.rows) return;
  box.textContent = `${grid.depths[row * grid.cols + col].toFixed(2)} ${grid.unit}`;
});
watch('value', read);
read();
"""
HINT = "Move the pointer over the picture: its depth stands here."
METER = f'<div class="metres" data-hint="{HINT}">{HINT}</div>'
METER_CSS = ".metres { font-size: 1.4em; font-variant-numeric: tabular-nums; }"


def with_page(app: FastAPI, service: DepthService) -> FastAPI:
    """The application with the page at `/`."""
    found: FastAPI = gr.mount_gradio_app(
        app,
        page(service),
        path="/",
        max_file_size=service.limits.max_bytes,
        footer_links=[],
        # Other themes load their letters from elsewhere.
        theme=gr.themes.Default(
            font=["system-ui", "sans-serif"], font_mono=["monospace"]
        ),
        ssr_mode=False,
    )
    return found


def page(service: DepthService) -> gr.Blocks:
    """What stands on the page, and what happens on it."""
    choices = _choices(service)

    async def predicted(
        path: str | None, adapter: str, fov_deg: float | None
    ) -> tuple[Any, ...]:
        if path is None:
            raise gr.Error("Give a photograph first.", print_exception=False)
        try:
            return await _predicted(service, Path(path), adapter, fov_deg)
        except (RefusedError, DataError) as error:
            raise gr.Error(f"{error}.", print_exception=False) from None

    blocks: gr.Blocks
    # Gradio removes what it has copied itself; `_room` the rest.
    with gr.Blocks(title="LAVA Depth", delete_cache=(KEPT_S, KEPT_S)) as blocks:
        gr.Markdown("# LAVA Depth\nA photograph in, its depth in metres out.")
        with gr.Row():
            with gr.Column(scale=1):
                # An Image would write the picture anew, and say its own of bad ones.
                picture = gr.File(label="Photograph", type="filepath", height=140)
                adapter = gr.Dropdown(
                    choices,
                    value=choices[0],
                    label="Adapter",
                    visible=len(choices) > 1,
                )
                fov = gr.Number(
                    label="Horizontal field of view in degrees (0: from the "
                    f"picture's EXIF data, else {ASSUMED_FOV_DEG:g})",
                    value=0,
                    minimum=0,
                    maximum=179,
                )
                button = gr.Button("Predict", variant="primary")
                about = gr.Markdown()
                files = gr.File(label="Depth to download", file_count="multiple")
            with gr.Column(scale=2):
                compare = gr.ImageSlider(
                    label="Picture and depth", elem_id="compare", interactive=False
                )
                meter = gr.HTML(
                    html_template=METER,
                    css_template=METER_CSS,
                    js_on_load=POINTER,
                    elem_id="meter",
                )
                scene = gr.Model3D(
                    label="In 3-D (drag to turn, wheel to come closer)",
                    elem_id="scene",
                    display_mode="solid",
                )
        outputs = [compare, meter, scene, files, about]
        given = [picture, adapter, fov]
        gr.on([button.click, picture.upload], predicted, given, outputs)
    return blocks


def _choices(service: DepthService) -> list[str]:
    shelf = service.shelf
    first = [] if shelf.plain is None else [ALONE]
    return [*first, *shelf.names, *([ROUTED] if shelf.router is not None else [])]


async def _predicted(
    service: DepthService, path: Path, adapter: str, fov_deg: float | None
) -> tuple[Any, ...]:
    """Values of the outputs: slider, meter, scene, files, words."""
    camera = Camera(fov_deg=fov_deg or None, assumed_fov_deg=ASSUMED_FOV_DEG)
    name = None if adapter in (ALONE, ROUTED) else adapter
    wanted = Wanted(None, camera, name, route=adapter == ROUTED, filename=path.name)
    due = asyncio.get_running_loop().time() + service.limits.deadline
    service.check(wanted)
    formats = _formats(service.shelf, wanted)
    content = await asyncio.to_thread(path.read_bytes)
    answers = await service.answers(content, wanted, formats, due)
    folder = await asyncio.to_thread(_room)
    written = await asyncio.to_thread(_written, answers, formats, folder, path.stem)
    image = await asyncio.to_thread(read_image, path, service.shelf.prediction.exif)
    depth = np.load(written["npy"])
    shown = _shown(depth, written.get("color"))
    downloads = [str(written[kind]) for kind in ("png", "npy") if kind in written]
    glb = str(written["glb"]) if "glb" in written else None
    unit = "m" if service.shelf.unit == "metres" else service.shelf.unit
    told = _words(answers[0].about, unit)
    return (image, shown), _grid(depth, unit), glb, downloads, told


def _formats(shelf: Shelf, wanted: Wanted) -> tuple[Format, ...]:
    """Those that have a meaning for whichever adapter may predict.

    Raises:
        RefusedError: 404 if there is none of the name.
    """
    several = shelf.all()
    if not wanted.route:
        with shelf.taken(wanted.adapter) as shelved:
            several = [shelved]
    return tuple(
        kind for kind in SHOWN if not any(unfit(kind, shelf, one) for one in several)
    )


def _room() -> Path:
    """A new folder for results; those that have been kept long enough go."""
    scratch = Path(os.environ["GRADIO_TEMP_DIR"])
    for old in scratch.glob(f"{RESULTS}*"):
        if time.time() - old.stat().st_mtime > KEPT_S:
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=RESULTS, dir=scratch))


def _written(
    answers: list[Answer], formats: tuple[Format, ...], folder: Path, stem: str
) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for kind, answer in zip(formats, answers, strict=True):
        assert answer.content is not None
        ending = {"color": "color.png", "png": "depth.png", "npy": "depth.npy"}
        found[kind] = folder / f"{stem}.{ending.get(kind, kind)}"
        with found[kind].open("wb") as file:
            shutil.copyfileobj(answer.content, file)
    return found


def _shown(depth: NDArray[np.float32], colour: Path | None) -> NDArray[np.uint8]:
    """RGB of the depth; of one without a unit in its own range."""
    if colour is not None:
        return read_image(colour)
    low, high = float(depth.min()), float(depth.max())
    level = ((depth - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(level, cv2.COLORMAP_TURBO)[..., ::-1], np.uint8)


def _grid(depth: NDArray[np.float32], unit: str) -> str:
    """What the browser looks values up in: nearest pixels, none averaged over edges."""
    zoom = min(GRID_PX / max(depth.shape), 1.0)
    size = [max(round(side * zoom), 1) for side in depth.shape]
    rows, cols = (
        np.minimum(((np.arange(n) + 0.5) / n * whole).astype(int), whole - 1)
        for n, whole in zip(size, depth.shape, strict=True)
    )
    small = np.ascontiguousarray(depth[np.ix_(rows, cols)], "<f4")
    depths = base64.b64encode(small.tobytes()).decode()
    said = {"rows": len(rows), "cols": len(cols), "unit": unit, "depths": depths}
    return json.dumps(said)


def _words(about: dict[str, Any], unit: str) -> str:
    near, middle, far = (about[f"depth_{k}"] for k in ("min", "median", "max"))
    words = f"**{near:.2f} to {far:.2f} {unit}**, median {middle:.2f} {unit}"
    if about["adapter"]:
        words += f"; adapter {about['adapter']}"
    if "confidence" in about:
        words += f" (the router's choice, {about['confidence']:.0%} sure)"
    if about["intrinsics"] is not None:
        assumed = " (assumed)" if about["focal_is_assumed"] else ""
        words += f"; focal length {about['intrinsics'][0]:.0f} px{assumed}"
    return words
