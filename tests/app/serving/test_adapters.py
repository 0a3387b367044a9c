"""Adapters come and go while others are served."""

import asyncio
import io
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

from app.prediction.options import Source
from app.serving import folder_watch
from app.serving.options import Limits, Secrets, Serving
from app.serving.server import open_service
from tests.app.serving.server import served
from tests.app.serving.test_load import ask

BOSS = {"Authorization": "Bearer boss"}


@pytest.fixture
def own(root, tmp_path):
    """A service whose adapters may be changed, and their folder."""
    shutil.copytree(root / "adapters", tmp_path / "adapters")
    secrets = Secrets(admin="boss")
    with served(root / "base", tmp_path / "adapters", secrets=secrets) as client:
        client.headers.update(BOSS)
        client.folder = tmp_path / "adapters"
        yield client


def files(folder):
    return {
        path.name: (path.name, path.read_bytes(), "application/octet-stream")
        for path in folder.iterdir()
    }


def npy(client, picture, adapter):
    answer = client.post(f"/v1/depth?format=npy&adapter={adapter}", content=picture)
    return answer.content if answer.status_code == 200 else answer.status_code


def test_adapters__are_listed(own):
    found = own.get("/v1/adapters").json()["adapters"]
    assert [(a["name"], a["generation"]) for a in found] == [
        ("rooms", 1),
        ("streets", 2),
    ]
    model = own.get("/v1/models").json()["models"][0]
    assert model["unit"] == "metres"
    assert model["router"] is True
    assert str(own.folder) not in own.get("/v1/adapters").text


def test_upload__is_the_adapter_of_its_files(own, picture):
    answer = own.put("/v1/adapters/küche 2", files=files(own.folder / "streets"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["generation"] == 3
    assert npy(own, picture, "küche 2") == npy(own, picture, "streets")
    told = own.post("/v1/depth?adapter=küche 2", content=picture)
    assert told.headers["x-adapter"] == "k%C3%BCche%202"
    assert "streets" not in own.put("/v1/adapters/x", json={}).text


def test_upload__may_send_both_files_under_one_field(own, picture):
    sent = [("files", file) for file in files(own.folder / "streets").values()]
    answer = own.put("/v1/adapters/attic", files=sent)
    assert answer.status_code == 200, answer.text
    assert npy(own, picture, "attic") == npy(own, picture, "streets")
    twice = own.put("/v1/adapters/attic", files=[*sent, sent[0]])
    assert twice.status_code == 400
    assert twice.json()["error"].count(sent[0][1][0]) == 3


def test_folder__is_one_below_the_services_own(own, picture, root):
    shutil.copytree(own.folder / "rooms", own.folder / "new")
    answer = own.put("/v1/adapters/attic", json={"folder": "new"})
    assert answer.status_code == 200, answer.text
    assert npy(own, picture, "attic") == npy(own, picture, "rooms")
    (own.folder / "link").symlink_to(root / "adapters/rooms")
    for name in (
        "../adapters/rooms",
        "new/..",
        "",
        ".",
        str(root / "adapters"),
        "link",
    ):
        answer = own.put("/v1/adapters/cellar", json={"folder": name})
        assert answer.status_code == 400, (name, answer.text)
    assert own.put("/v1/adapters/a", json={"folder": "no"}).status_code == 422


@pytest.mark.parametrize("name", ["..", "a%2Fb", "%2e%2e%2fx", "x" * 101, "a.b"])
def test_name__is_never_a_path(own, name):
    answer = own.put(f"/v1/adapters/{name}", json={"folder": "rooms"})
    assert answer.status_code in (404, 422)
    assert len(own.get("/v1/adapters").json()["adapters"]) == 2


def test_adapter_that_does_not_fit__changes_nothing(own, picture):
    before = npy(own, picture, "rooms")
    sent = files(own.folder / "rooms")
    description = json.loads(sent["adapter.json"][1])
    said = {**description, "base_sha256": "0" * 64}
    other = {**sent, "adapter.json": ("adapter.json", json.dumps(said))}
    said = {**description, "base": {"where": "here"}}
    strange = {**sent, "adapter.json": ("adapter.json", json.dumps(said))}
    damaged = {**sent, "adapter.safetensors": ("adapter.safetensors", b"junk")}
    cases = ((other, "same base"), (damaged, "the upload"), (strange, "the upload"))
    for broken, words in cases:
        answer = own.put("/v1/adapters/rooms", files=broken)
        assert answer.status_code == 422, answer.text
        assert words in answer.json()["error"]
        assert "/tmp" not in answer.json()["error"]
    named = own.put("/v1/adapters/rooms", json={"folder": "r" * 20_000})
    assert (named.status_code, "as JSON" in named.json()["error"]) == (413, True)
    half = {"adapter.json": sent["adapter.json"]}
    assert own.put("/v1/adapters/rooms", files=half).status_code == 400
    assert npy(own, picture, "rooms") == before
    assert own.service.shelf.bank.names == ("generation 1", "generation 2")


def test_upload__too_large_names_its_own_option(root):
    limits = Limits(max_adapter_mb=1e-3)
    secrets = Secrets(admin="boss")
    with served(root / "base", root / "adapters", limits, secrets) as client:
        client.headers.update(BOSS)
        answer = client.put("/v1/adapters/x", files=files(root / "adapters/rooms"))
    assert answer.status_code == 413
    assert "--max-adapter-mb" in answer.json()["error"]


def test_removed_adapter__is_404_and_its_memory_free(own, picture):
    assert own.delete("/v1/adapters/rooms").status_code == 200
    assert own.delete("/v1/adapters/rooms").status_code == 404
    answer = own.post("/v1/depth?adapter=rooms", content=picture)
    assert answer.status_code == 404
    assert answer.json()["error"].endswith("there are streets")
    assert own.service.shelf.bank.names == ("generation 2",)


def test_token__is_asked_for(own):
    for headers in ({"Authorization": "Bearer no"}, {"Authorization": ""}):
        answer = own.delete("/v1/adapters/rooms", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


def test_folder__is_followed(root, picture, tmp_path):
    folder = tmp_path / "adapters"
    shutil.copytree(root / "adapters", folder)
    with served(root / "base", folder, rescan=0.05) as client:

        def until(adapter, wanted):
            for _ in range(200):
                found = npy(client, picture, adapter)
                if found == wanted:
                    return True
                time.sleep(0.05)
            return False

        rooms, streets = (npy(client, picture, name) for name in ("rooms", "streets"))
        shutil.copytree(folder / "rooms", folder / "new")
        assert until("new", rooms)
        shutil.copytree(folder / "streets", folder / "new", dirs_exist_ok=True)
        assert until("new", streets)
        # What cannot be loaded changes nothing.
        (folder / "new/adapter.safetensors").write_bytes(b"junk")
        time.sleep(0.3)
        assert npy(client, picture, "new") == streets
        shutil.rmtree(folder / "new")
        assert until("new", 404)
        assert npy(client, picture, "rooms") == rooms


def test_strange_files__do_not_end_the_watch(root, tmp_path):
    """Neither a dangling link in an adapter's folder nor one in an adapter's place."""
    shutil.copytree(root / "adapters", tmp_path / "adapters")
    source = Source(str(root / "base"))
    told = Serving(adapters=str(tmp_path / "adapters"), rescan=1, accelerator="cpu")
    service, watch = open_service(source, told, Limits())
    before = service.shelf.all()
    (watch.folder / "rooms/.#adapter.json").symlink_to("nobody@nowhere")
    (watch.folder / "cellar").mkdir()
    (watch.folder / "cellar/adapter.json").symlink_to("nowhere.json")
    (watch.folder / "rooms/notes.txt").write_text("not the adapter's own")
    shutil.copytree(root / "adapters/streets", watch.folder / "new")
    watch.look()
    assert service.shelf.names == ["new", "rooms", "streets"]
    # What has not changed is not loaded again.
    assert [one for one in service.shelf.all() if one.name != "new"] == before


def test_adapter_that_fails__does_not_keep_others_back(root, tmp_path, monkeypatch):
    shutil.copytree(root / "adapters", tmp_path / "adapters")
    source = Source(str(root / "base"))
    told = Serving(adapters=str(tmp_path / "adapters"), rescan=1, accelerator="cpu")
    service, watch = open_service(source, told, Limits())
    opened = folder_watch.open_adapter

    def failing(path):
        if path.name == "attic":
            raise RuntimeError("a fault")
        return opened(path)

    monkeypatch.setattr(folder_watch, "open_adapter", failing)
    for name in ("attic", "new"):
        shutil.copytree(root / "adapters/streets", watch.folder / name)
    watch.look()
    assert service.shelf.names == ["new", "rooms", "streets"]


def test_look_that_fails__is_said_once_and_repeated(tmp_path, monkeypatch, caplog):
    watch = folder_watch.FolderWatch(None, tmp_path, 0.01)
    looks = []

    def failing():
        looks.append(1)
        raise OSError("the share has gone")

    monkeypatch.setattr(watch, "look", failing)

    async def watched():
        with suppress(TimeoutError):
            await asyncio.wait_for(watch.run(), 0.3)

    asyncio.run(watched())
    assert len(looks) > 2
    assert caplog.text.count("the share has gone") == 1


def changing(client, folder, seconds):
    """Loads one of two adapters under one name again and again, and removes it."""
    uploads = [files(folder / name) for name in ("rooms", "streets")]
    generations = {}
    until, turn = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        answer = client.put("/v1/adapters/hot", files=uploads[turn % 2])
        assert answer.status_code == 200, answer.text
        generations[answer.json()["generation"]] = ("rooms", "streets")[turn % 2]
        turn += 1
        if turn % 5 == 0:
            assert client.delete("/v1/adapters/hot").status_code == 200
    return generations


def hot(client, folder, picture, seconds):
    """Answers under load by the generation that they name, and what each of it was."""
    expected = {name: npy(client, picture, name) for name in ("rooms", "streets")}
    found, stop = [], threading.Event()

    def asking(_):
        while not stop.is_set():
            found.append(ask(client, picture, adapter="hot", format="npy"))

    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(asking, i) for i in range(4)]
        generations = changing(client, folder, seconds)
        stop.set()
        for task in tasks:
            task.result()
    statuses = {answer.status for answer in found}
    assert statuses <= {200, 404}
    good = [answer for answer in found if answer.status == 200]
    for answer in good:
        name = generations[int(answer.headers["x-generation"])]
        assert close(answer.content, expected[name])
    return good, generations


def close(one, other):
    """Whether two .npy files differ by 1e-5 of 80 m at most."""
    difference = np.load(io.BytesIO(one)) - np.load(io.BytesIO(other))
    return np.abs(difference).max() <= 8e-4


def test_hot_load__every_answer_is_of_the_generation_it_names(own, picture):
    good, generations = hot(own, own.folder, picture, 2)
    assert len({answer.headers["x-generation"] for answer in good}) > 1
    own.delete("/v1/adapters/hot")
    assert len(generations) > 3
    # Nothing that was replaced stays in memory.
    assert len(own.service.shelf.bank.names) == 2


@pytest.mark.slow
def test_hot_load__for_a_minute(own, picture):
    good, _ = hot(own, own.folder, picture, 60)
    assert len(good) > 100
