"""Publishing through the real client to a server on localhost."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from lightning.pytorch.utilities import rank_zero_only

from app.prediction.command import main
from app.publishing.hub import (
    Publication,
    card,
    check,
    licence_of,
)
from models.adapters import Lava
from models.artefacts.base import Base
from models.artefacts.depth_record import DepthRecord
from models.errors import ExportError
from models.networks import NetworkSpec
from models.networks.timm_network import DINOv3Network, TimmSpec
from tests.app.publishing.adapted import save_adapted
from tests.app.publishing.hub_server import TOKEN, running_hub

NAME = "me/my-rooms"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An adapter folder with two recorded results, one of them aligned."""
    root = tmp_path_factory.mktemp("hub")
    folder = root / "model"
    save_adapted(root / "base", folder)
    metrics = {"delta1": 0.91234, "abs_rel": 0.1, "rmse": 0.4}
    common = {"protocol": "nyu_eigen", "n_images": 654, "flip_tta": False}
    for align in ("none", "median"):
        content = {**common, "metrics": metrics, "align": align}
        (folder / f"test_nyu_eigen_{align}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def hub():
    with running_hub() as found:
        yield found


@dataclass
class Done:
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(hub, tmp_path, monkeypatch, capsys):
    """predict.py in this process, with the client pointed at the server."""
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("app.publishing.hub.WAIT_S", 0.0)
    monkeypatch.chdir(tmp_path)

    def call(*args, token=TOKEN) -> Done:
        monkeypatch.delenv("HF_TOKEN", raising=False)
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)
        code = 0
        try:
            main([str(arg) for arg in args])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        printed = capsys.readouterr()
        assert TOKEN not in printed.out + printed.err
        return Done(code, printed.out, printed.err)

    return call


def given(model) -> list[str]:
    return ["--model", str(model), "--push-to-hub", NAME, "--license", "apache-2.0"]


def test_push__card_and_files_in_one_commit_and_back(hub, tmp_path, run, model):
    done = run(*given(model))
    assert done.returncode == 0, done.stderr
    assert f"published: {hub.url}/{NAME}" in done.stdout
    assert hub.commits == [NAME]
    files = hub.repos[NAME]
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    _, head, text = files["README.md"].decode().split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert metadata["license"] == "apache-2.0"
    assert metadata["pipeline_tag"] == "depth-estimation"
    (index,) = metadata["model-index"]
    (result,) = index["results"]
    assert result["dataset"]["name"] == "NYU Depth v2"
    found = {m["type"]: m["value"] for m in result["metrics"]}
    assert found == {"delta1": 0.9123, "abs_rel": 0.1, "rmse": 0.4}
    assert "Protocol `nyu_eigen`, 654 images" in text
    assert text.count("Protocol") == 1  # the aligned row is not a result of the model
    assert "| method | Lava |" in text

    photo = tmp_path / "photo.png"
    photo.write_bytes(_png())
    back = run(photo, "--model", NAME, "--formats", "npy")
    assert back.returncode == 0, back.stderr
    ours = run(photo, "--model", model, "--formats", "npy", "--output", "own")
    assert ours.returncode == 0, ours.stderr
    name = "photo.png.depth.npy"
    one, two = (tmp_path / f for f in (f"predictions/{name}", f"own/{name}"))
    assert one.read_bytes() == two.read_bytes()


def _png() -> bytes:
    import cv2

    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_push__onto_a_repository_that_exists(hub, run, model):
    hub.repos[NAME] = {"old.txt": b"kept"}
    done = run(*given(model))
    assert done.returncode == 0, done.stderr
    assert hub.repos[NAME]["old.txt"] == b"kept"


def test_push__private_is_so_or_refused(hub, run, model):
    done = run(*given(model), "--private")
    assert done.returncode == 0, done.stderr
    assert hub.private == {NAME}
    assert "model.safetensors" in hub.repos[NAME]
    hub.repos[NAME], hub.private = {"old.txt": b"kept"}, set()
    done = run(*given(model), "--private")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {NAME} exists and is public")
    assert hub.repos[NAME] == {"old.txt": b"kept"}


def test_push__of_another_form_deletes_the_files_of_the_first(hub, run, model):
    kept = {"old.txt": b"1", "tokenizer/notes.txt": b"2", "docs/model.onnx": b"3"}
    hub.repos[NAME] = dict(kept)
    done = run(*given(model), "--export-format", "adapter")
    assert done.returncode == 0, done.stderr
    assert "adapter.json" in hub.repos[NAME]
    done = run(*given(model), "--export-format", "depth-anything")
    assert done.returncode == 0, done.stderr
    new = {"README.md", "config.json", "model.safetensors"}
    assert set(hub.repos[NAME]) == new | set(kept)
    assert hub.commits == [NAME, NAME]


@pytest.mark.parametrize("word", ["create", "preupload", "commit"])
@pytest.mark.parametrize("statuses", [[503, 500], [0]], ids=["5xx twice", "cut"])
def test_push__goes_on_after_passing_failures(hub, run, model, word, statuses):
    hub.fails[word] = list(statuses)
    done = run(*given(model))
    assert done.returncode == 0, done.stderr
    assert "model.safetensors" in hub.repos[NAME]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no token", "there is no Hub token; run `hf auth login`"),
        ("wrong token", "does not let this token write to me/my-rooms (401)"),
        ("forbidden", "does not let this token write to me/my-rooms (403)"),
        ("down", "the Hub answered 503, 4 times"),
        ("lost file", "lacks model.safetensors after the upload"),
        ("bad name", "is not OWNER/NAME"),
        ("no licence", "the licence of the base is not known"),
    ],
)
def test_push__a_failure_is_one_line_and_nothing_is_called_done(
    hub, run, model, case, message
):
    token, args = TOKEN, ["--model", model, "--push-to-hub", NAME]
    args += [] if case == "no licence" else ["--license", "apache-2.0"]
    if case == "no token":
        token = None
    if case == "wrong token":
        token = "hf_" + "x" * 34
    if case == "forbidden":
        hub.fails["create"] = [403]
    if case == "down":
        hub.fails["create"] = [503] * 50
    if case == "lost file":
        hub.loses = {"model.safetensors"}
    if case == "bad name":
        args[3] = "rooms"
    done = run(*args, token=token)
    assert done.returncode != 0
    assert "published" not in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    if case != "lost file":
        assert not any(hub.repos.values())


def test_load__from_a_hub_that_is_down_or_into_a_read_only_cache(hub, tmp_path, run):
    (tmp_path / "photo.png").write_bytes(_png())
    done = run("photo.png", "--model", "me/none")
    assert done.returncode != 0
    assert "could not be had from the Hub" in done.stderr
    (tmp_path / "cache").write_text("in the way")
    hub.repos["me/none"] = {"model.safetensors": b"x"}
    (tmp_path / "photo.png").write_bytes(_png())
    done = run("photo.png", "--model", "me/none")
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("weights", "licence"),
    [
        ("depth-anything-v2-small", "apache-2.0"),
        ("depth-anything-v2-large", "cc-by-nc-4.0"),
        ("depth-anything-v1-large", "apache-2.0"),
        ("da3mono-large", "apache-2.0"),
        ("depth-anything/DA3METRIC-LARGE", "apache-2.0"),
        ("dinov3-small-plus", "dinov3-license"),
        ("timm/vit_base_patch16_dinov3.lvd1689m", "dinov3-license"),
        ("timm/eva02_base_patch14_224.mim_in22k", "mit"),
        ("timm/eva02_base_patch14_224.nowhere", None),
        ("timm/vit_small_patch9_nothing", None),
        ("files/depth_anything_v2_vits.pth", "apache-2.0"),
        ("files/depth_anything_v2_metric_vkitti_vitl.pth", "cc-by-nc-4.0"),
        ("files/depth_anything_v2_metric_vkitti_vits.pth", None),
        ("somebody/network", None),
        (None, None),
    ],
)
def test_licence__is_the_bases(monkeypatch, weights, licence):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    spec = NetworkSpec("S", "v2", "metric", 10.0)
    record = DepthRecord(
        network=spec,
        image_size=(28, 42),
        base=Base(weights),
        base_sha256="0",
        adapter=Lava(),
    )
    asked = Publication(NAME, False, "depth-anything", None)
    assert licence_of(record) == licence
    if licence is None:
        with pytest.raises(ExportError, match="is not known"):
            check(asked, record)
        return
    assert check(asked, record) == licence
    free = replace(asked, licence="mit")
    if licence in ("apache-2.0", "mit"):
        assert check(free, record) == "mit"
        return
    why = "forbids commercial use" if "-nc" in licence else "under which what is made"
    with pytest.raises(ExportError, match=why):
        check(free, record)


def test_card__of_a_licence_that_the_hub_does_not_know_names_it():
    spec = TimmSpec("vit_small_patch16_dinov3", 10.0, 64, 4, 4)
    record = DepthRecord(
        network=spec,
        family=DINOv3Network,
        image_size=(32, 48),
        base=Base("files/my_encoder.pth", "encoder"),
        base_sha256="0",
        adapter=Lava(),
    )
    licence = licence_of(record)
    text = card(Publication(NAME, False, "adapter", None), record, licence, [], 7)
    about = yaml.safe_load(text.split("---")[1])
    assert about["license"] == "other"
    assert about["license_name"] == "dinov3-license"
    assert about["license_link"].startswith("https://ai.meta.com/")
    assert f"[dinov3-license]({about['license_link']})" in text
    assert "timm's vit_small_patch16_dinov3 under a DPT head" in text


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "form",
    [
        "adapter",
        "peft",
        pytest.param("onnx", marks=slow),
        pytest.param("transformers", marks=slow),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_push__every_form_is_opened_from_the_hub(hub, tmp_path, run, model, form):
    done = run(*given(model), "--export-format", form, "--size", "196x196")
    assert done.returncode == 0, done.stderr
    (tmp_path / "photo.png").write_bytes(_png())
    options = ["photo.png", "--formats", "npy", "--size", "196x196"]
    for name, out in ((f"{NAME}@main", "theirs"), (model, "ours")):
        done = run(*options, "--model", name, "--output", out)
        assert done.returncode == 0, done.stderr
    ours, theirs = (
        np.load(tmp_path / out / "photo.png.depth.npy") for out in ("ours", "theirs")
    )
    np.testing.assert_allclose(theirs, ours, rtol=1e-3)


def test_push__of_two_processes_happens_once(hub, run, model, monkeypatch):
    """The second process of a launch sees its rank before anything else."""
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    done = run(*given(model))
    assert done.returncode == 0, done.stderr
    assert hub.seen == []
    assert "published" not in done.stdout
