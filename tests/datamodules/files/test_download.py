"""Against a local HTTP server that breaks off in the middle, once or always."""

import hashlib
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from datamodules import NYUDataModule, nyu
from datamodules.batch import DataError
from datamodules.files.download import fetch
from tests.datamodules.layouts import write_nyu_mat

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        content = self.server.files[self.path]
        start = 0
        if self.server.resumes and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.server.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if self.server.cuts > 0:
            self.server.cuts -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.files, found.cuts, found.resumes, found.starts = {"/f": CONTENT}, 0, True, []
    found.url = f"http://127.0.0.1:{found.server_port}"
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def get(server, path, **options):
    given = {"md5": MD5, "size_bytes": len(CONTENT), "wait_s": 0, **options}
    fetch(f"{server.url}/f", path, **given)


@pytest.mark.parametrize("resumes", [True, False])
def test_fetch__goes_on_after_a_cut(server, tmp_path, resumes):
    server.cuts, server.resumes = 1, resumes
    get(server, tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == CONTENT
    assert server.starts == [0, len(CONTENT) // 2 if resumes else 0]
    assert [p.name for p in tmp_path.iterdir()] == ["f.bin"]
    get(server, tmp_path / "f.bin")
    assert len(server.starts) == 2  # it is there: nothing is asked


def test_fetch__keeps_what_arrived_for_the_next_run(server, tmp_path):
    server.cuts = 5
    with pytest.raises(
        DataError, match=r"992,000 of 1,024,000 bytes are in .*part: run"
    ):
        get(server, tmp_path / "f.bin")
    assert not (tmp_path / "f.bin").exists()
    get(server, tmp_path / "f.bin")
    assert server.starts[-1] == 992_000
    assert (tmp_path / "f.bin").read_bytes() == CONTENT


def test_fetch__another_file_is_refused_and_deleted(server, tmp_path):
    with pytest.raises(DataError, match="gave a file with MD5"):
        get(server, tmp_path / "f.bin", md5="0" * 32)
    assert not list(tmp_path.iterdir())


def test_fetch__no_server(server, tmp_path):
    with pytest.raises(DataError, match=r"could not be fetched .*Connection refused"):
        fetch("http://127.0.0.1:9/f", tmp_path / "f", md5="", size_bytes=1, wait_s=0)


def test_prepare_data__fetches_the_labelled_set(server, tmp_path, monkeypatch, capfd):
    source = write_nyu_mat(tmp_path / "source", frames=3)
    for name, key, path in (
        ("nyu_depth_v2_labeled.mat", "LABELLED", "/nyu_depth_v2/"),
        ("splits.mat", "SPLITS", "/indoor_seg_sup/"),
    ):
        content = (source / name).read_bytes()
        server.files[path + name] = content
        monkeypatch.setattr(nyu, f"{key}_BYTES", len(content))
        monkeypatch.setattr(nyu, f"{key}_MD5", hashlib.md5(content).hexdigest())
    monkeypatch.setattr(nyu, "fetch", partial(fetch, wait_s=0))
    server.cuts = 1
    data = NYUDataModule(str(tmp_path / "new"), download=True, url=server.url)
    data.prepare_data()
    data.setup("fit")
    assert len(data.frames("train")) == 2
    assert len(server.starts) == 3
