"""As much of the Hugging Face Hub as publishing and loading a model needs."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

TOKEN = "hf_" + "t" * 34


class Hub(ThreadingHTTPServer):
    """Repositories in memory, and what shall go wrong."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.commits: list[str] = []
        self.seen: list[str] = []
        self.fails: dict[str, list[int]] = {}
        """Statuses to answer first, by the last word of a path; 0 cuts the line."""
        self.loses: set[str] = set()
        """Files that a commit drops."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, content: object = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_one(self) -> None:
        path = unquote(urlparse(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.server.seen.append(f"{self.command} {path}")
        for word, statuses in self.server.fails.items():
            if word in path and statuses:
                status = statuses.pop(0)
                if status == 0:
                    self.close_connection = True
                    self.connection.close()
                    return None
                return self.answer(status, {"error": "made to fail"})
        if self.command in ("GET", "HEAD") and "/resolve/" in path:
            return self.resolve(path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid credentials"})
        return self.api(path, body)

    do_GET = do_HEAD = do_POST = handle_one  # noqa: N815 - the base class's names

    def resolve(self, path: str) -> None:
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        name = rest.partition("/")[2]
        files = self.server.repos.get(repo)
        if files is None or name not in files:
            code = "RepoNotFound" if files is None else "EntryNotFound"
            return self.answer(404, {"error": code}, X_Error_Code=code)
        etag = hashlib.sha1(files[name]).hexdigest()
        self.answer(200, files[name], ETag=f'"{etag}"', X_Repo_Commit="c" * 40)

    def api(self, path: str, body: bytes) -> None:
        words = path.strip("/").split("/")
        if path == "/api/repos/create":
            given = json.loads(body)
            repo = f"{given.get('organization') or 'me'}/{given['name']}"
            url = f"{self.server.url}/{repo}"
            if repo in self.server.repos:
                return self.answer(409, {"error": "exists", "url": url})
            self.server.repos[repo] = {}
            # Clients before 2026 say the second.
            if given.get("visibility") == "private" or given.get("private"):
                self.server.private.add(repo)
            return self.answer(200, {"url": url, "id": repo})
        if path == "/api/whoami-v2":
            return self.answer(200, {"name": "me", "orgs": [], "auth": {}})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        repo = "/".join(words[2:4])
        files = self.server.repos.get(repo)
        if files is None:
            return self.answer(404, {"error": "no repo"}, X_Error_Code="RepoNotFound")
        if words[4:5] == ["preupload"]:
            asked = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in asked
            ]
            return self.answer(200, {"files": modes})
        if words[4:5] == ["commit"]:
            for line in body.decode().splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "deletedFile":
                    del files[value["path"]]
                elif entry["key"] == "file" and value["path"] not in self.server.loses:
                    files[value["path"]] = base64.b64decode(value["content"])
            self.server.commits.append(repo)
            commit = {"success": True, "commitOid": "c" * 40, "hookOutput": ""}
            url = f"{self.server.url}/{repo}/commit/{'c' * 40}"
            return self.answer(200, commit | {"commitUrl": url})
        siblings = [{"rfilename": name} for name in sorted(files)]
        if words[4:5] == ["tree"]:
            tree = [
                {"type": "file", "path": n, "size": len(c), "oid": "0" * 40}
                for n, c in files.items()
            ]
            return self.answer(200, tree)
        about = {"id": repo, "modelId": repo, "sha": "c" * 40, "siblings": siblings}
        return self.answer(200, about | {"private": repo in self.server.private})

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A server for the length of a block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
