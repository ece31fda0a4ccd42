"""A stand-in for the Hugging Face Hub: local, in memory, spoken to by the real huggingface_hub.

It is not the Hub. It knows what that client asks for to make a repository, send a commit and fetch
files: LFS uploads in one part, no Xet, one page of any list. LFS files lie on a second server, as
theirs do, which must never see a token.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from tests.stand_ins.hub_state import Refused, Repo, Request, StandInHub, git_oid, is_lfs


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, notes it, and writes what one of the two servers answers."""

    hub: StandInHub
    name: str

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        body = self._body()
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(self.name, self.command, self.path, headers, body)
        self.hub.requests.append(request)
        try:
            if self.hub.broken:
                raise Refused(self.hub.broken)
            answer, more = self._answer(request)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self._write(302 if "Location" in more else 200, content, more)
        except Refused as no:
            about = {"X-Error-Code": no.code, "X-Error-Message": no.message}
            about = {key: value for key, value in about.items() if value}
            self._write(no.status, json.dumps({"error": no.message}).encode(), about)

    do_HEAD = do_POST = do_PUT = do_GET

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, request: Request) -> tuple[dict | list | bytes, dict[str, str]]:
        raise Refused(501)

    def _write(self, status: int, content: bytes, more: dict[str, str]) -> None:
        """With the slice of the content that a Range asks for, of what is answered with 200."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and status == 200:
            first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
            more = more | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            status, content = 206, content[first : last + 1]
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **more}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class _Storage(_Handler):
    """LFS files by their sha256, behind addresses that need no token."""

    name = "storage"

    def _answer(self, request: Request) -> tuple[bytes, dict[str, str]]:
        oid = request.path.strip("/")
        if request.method == "PUT":
            if hashlib.sha256(request.body).hexdigest() != oid:
                raise Refused(400, message="the content has another sha256")
            self.hub.stored[oid] = request.body
            return b"", {}
        return self.hub.stored[oid], {}


class _Hub(_Handler):
    """The Hub's own addresses."""

    name = "hub"

    def _answer(self, request: Request) -> tuple[dict | list | bytes, dict[str, str]]:
        hub, path = self.hub, urlsplit(request.path).path
        bearer = request.headers.get("authorization", "")
        token = bearer.removeprefix("Bearer ") or None

        def sent() -> dict:
            return json.loads(request.body or b"{}")

        if path == "/api/repos/create":
            return hub.create(sent(), token), {}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}, {}
        if found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            hub.writable(found[1], token)
            return hub.lfs_batch(sent()), {}
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(hub.repo(found[1], token), found[2], unquote(found[3]))
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/([^/]+))?", path)
        if not found:
            raise Refused(404, message=f"the stand-in knows no {path}")
        name, action, revision = found[1], found[2], found[3] or "main"
        if action in (None, "revision"):
            return hub.info(name, hub.repo(name, token), revision), {}
        if action == "tree":
            return hub.tree(hub.repo(name, token), revision), {}
        repo = hub.writable(name, token)
        if action == "branch":
            return hub.branch(repo, unquote(revision)), {}
        if action == "preupload":
            return hub.preupload(repo, revision, sent()), {}
        if action == "commit":
            lines = [json.loads(line) for line in request.body.splitlines()]
            return hub.commit(name, repo, revision, lines), {}
        raise Refused(404, message=f"the stand-in knows no {path}")

    def _file(self, repo: Repo, revision: str, path: str) -> tuple[bytes, dict[str, str]]:
        oid = self.hub.at(repo, revision)
        content = repo.commits[oid].get(path)
        known = {"X-Repo-Commit": oid}
        if content is None:
            raise Refused(404, "EntryNotFound", f"{path} does not exist")
        if not is_lfs(path, len(content)):
            return content, known | {"ETag": f'"{git_oid(content)}"'}
        sha256 = hashlib.sha256(content).hexdigest()
        self.hub.stored[sha256] = content  # also what a test has put there
        linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        return b"", known | linked | {"Location": f"{self.hub.storage_url}/{sha256}"}


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """A running one, on two free local ports."""
    hub = StandInHub()
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), type(kind.__name__, (kind,), {"hub": hub}))
        for kind in (_Hub, _Storage)
    ]
    hub.url = f"http://127.0.0.1:{servers[0].server_port}"
    # Another name for the same machine: clients before 2.0 look at the name alone.
    hub.storage_url = f"http://localhost:{servers[1].server_port}"
    threads = [
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        for server in servers
    ]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()
