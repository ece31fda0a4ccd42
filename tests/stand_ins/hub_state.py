"""What the stand-in for the Hugging Face Hub holds and answers (tests/stand_ins/hub.py)."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from urllib.parse import unquote

WRITER, READER = "hf_" + "w" * 34, "hf_" + "r" * 34  # the tokens it knows
LFS_FROM = 10_000_000  # bytes; smaller files are LFS by their ending alone
LFS_ENDINGS = (".safetensors", ".bin")
WRONG_TOKEN = "Invalid credentials in Authorization header"
NO_RIGHTS = "Forbidden: you must use a write token to upload to a repository."


@dataclass
class Repo:
    """Its commits, each with all its files, and the branches that name them."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    def resolved(self, revision: str) -> str | None:
        revision = self.branches.get(revision, revision)
        return revision if revision in self.commits else None


@dataclass(frozen=True)
class Request:
    """One that came in. server: "hub", or "storage" for LFS files."""

    server: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Refused(Exception):
    """What is answered instead: a status and the Hub's two headers about errors."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class StandInHub:
    """Its repositories, and every request that came in."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.stored: dict[str, bytes] = {}  # LFS files by their sha256
        self.requests: list[Request] = []
        self.broken: int | None = None  # status of every answer, while it is set
        self.url = self.storage_url = ""

    def asked(self, part: str) -> list[Request]:
        return [request for request in self.requests if part in request.path]

    # What it answers; `files` of a repository may be altered by hand in between

    def repo(self, name: str, token: str | None) -> Repo:
        repo = self.repos.get(name)
        if token not in (None, WRITER, READER):
            raise Refused(401, message=WRONG_TOKEN)
        if repo is None or (repo.private and token is None):
            raise Refused(404 if token else 401, "RepoNotFound", "Repository not found")
        if repo.gated and token != WRITER:
            raise Refused(403 if token else 401, "GatedRepo", f"Access to {name} is restricted")
        return repo

    def writable(self, name: str, token: str | None) -> Repo:
        repo = self.repo(name, token)
        if token != WRITER:
            raise Refused(403, message=NO_RIGHTS)
        return repo

    def at(self, repo: Repo, revision: str) -> str:
        oid = repo.resolved(unquote(revision))
        if oid is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid

    def info(self, name: str, repo: Repo, revision: str) -> dict:
        oid = self.at(repo, revision)
        siblings = [{"rfilename": path} for path in sorted(repo.commits[oid])]
        return {"id": name, "sha": oid, "private": repo.private, "siblings": siblings}

    def tree(self, repo: Repo, revision: str) -> list[dict]:
        def entry(path: str, content: bytes) -> dict:
            lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
            known = {"lfs": lfs | {"pointerSize": 134}} if is_lfs(path, len(content)) else {}
            size = len(content)
            return {"type": "file", "path": path, "size": size, "oid": git_oid(content), **known}

        files = repo.commits[self.at(repo, revision)]
        return [entry(path, content) for path, content in sorted(files.items())]

    def create(self, wanted: dict, token: str | None) -> dict:
        name = f"{wanted['organization']}/{wanted['name']}"
        if token != WRITER:
            raise Refused(403, message=f"You don't have the rights to create {name}")
        if name in self.repos:
            raise Refused(409, message="You already created this model repo")
        self.repos[name] = Repo(private=wanted.get("visibility") == "private")
        self.repos[name].commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return {"url": f"{self.url}/{name}"}

    def branch(self, repo: Repo, name: str) -> dict:
        if name in repo.branches:
            raise Refused(409, message="Reference already exists")
        repo.branches[name] = repo.branches["main"]
        return {}

    def preupload(self, repo: Repo, revision: str, wanted: dict) -> dict:
        self.at(repo, revision)

        def mode(file: dict) -> dict:
            kind = "lfs" if is_lfs(file["path"], file["size"]) else "regular"
            return {"path": file["path"], "uploadMode": kind, "shouldIgnore": False}

        return {"files": [mode(file) for file in wanted["files"]]}

    def lfs_batch(self, wanted: dict) -> dict:
        def answer(file: dict) -> dict:
            if file["oid"] in self.stored:
                return file
            upload = {"href": f"{self.storage_url}/{file['oid']}"}
            return file | {"actions": {"upload": upload}}

        return {"transfer": "basic", "objects": [answer(file) for file in wanted["objects"]]}

    def commit(self, name: str, repo: Repo, branch: str, lines: list[dict]) -> dict:
        files = dict(repo.commits[self.at(repo, branch)])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
            else:
                assert line["key"] == "file", line
                files[value["path"]] = base64.b64decode(value["content"])
        oid = repo.commit(unquote(branch), files)
        return {"commitUrl": f"{self.url}/{name}/commit/{oid}", "commitOid": oid}


def is_lfs(path: str, size: int) -> bool:
    return path.endswith(LFS_ENDINGS) or size >= LFS_FROM


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
