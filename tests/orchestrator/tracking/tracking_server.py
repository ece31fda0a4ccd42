"""A scripted stand-in for W&B's server: as much of its API as wandb-core asks of it, in memory.

It shows what our follower makes wandb send; it says nothing about the real server.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandIn:
    """What was sent: history rows by run id, in order; summary, config, name, exit codes."""

    def __init__(self) -> None:
        self.refuse = False  # every key
        self.busy = False  # takes no data, for the time being
        self.in_order = True  # no gap between two parts of a history, and nothing written over
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.summary: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.exit_codes: list[int] = []
        self.url = ""
        self._lock = threading.Lock()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if self.refuse:
                return 401, {"errors": [{"message": "user is not logged in"}]}
            if path.endswith("/file_stream"):
                if self.busy:
                    return 503, {}
                return 200, self._stream(path.split("/")[-2], body)
            answers = {
                "RunResumeStatus": self._resume,
                "UpsertBucket": self._upsert,
                "CreateRunFiles": self._places,
            }
            answer = answers.get(body.get("operationName", ""))
            return 200, {"data": answer(body["variables"]) if answer else {}}

    def _stream(self, id: str, body: dict[str, Any]) -> dict[str, Any]:
        files = body.get("files", {})
        if sent := files.get("wandb-history.jsonl"):
            rows = self.history.setdefault(id, [])
            self.in_order = self.in_order and sent["offset"] == len(rows)
            rows += [json.loads(line) for line in sent["content"]]
        if sent := files.get("wandb-summary.json"):
            self.summary.setdefault(id, {}).update(json.loads(sent["content"][-1]))
        if body.get("complete"):
            self.exit_codes.append(body["exitcode"])
        return {"exitcode": None, "limits": {}}

    def _places(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Where files are to be put."""
        files = [
            {"name": name, "uploadUrl": f"{self.url}/put/{i}"}
            for i, name in enumerate(variables["files"])
        ]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def _resume(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(variables["name"])
        bucket = run and {
            **run,
            "summaryMetrics": json.dumps(self.summary.get(run["name"], {})),
            "logLineCount": 0,
            "historyLineCount": len(self.history.get(run["name"], [])),
            "eventsLineCount": 0,
            "historyTail": json.dumps(
                [json.dumps(r) for r in self.history.get(run["name"], [])[-1:]]
            ),
            "eventsTail": "[]",
            "tags": [],
            "notes": None,
            "wandbConfig": json.dumps({"t": {}}),  # a run that has begun
        }
        return {"model": {"id": "p", "name": "p", "entity": ENTITY, "bucket": bucket}}

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        new = variables["name"] not in self.runs
        run = self.runs.setdefault(variables["name"], {"name": variables["name"]})
        run["id"] = f"bucket-{run['name']}"
        for ours, theirs in (("config", "config"), ("displayName", "displayName")):
            run[ours] = variables[theirs] or run.get(ours)
        project = {"id": "p", "name": variables["project"], "entity": ENTITY}
        bucket = {**run, "description": None, "sweepName": None, "project": project}
        return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0}, "inserted": new}}


ENTITY = {"id": "e", "name": "someone"}


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """A server on a free port of this machine while inside."""
    state = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self._sent()
            if "/otel/" in self.path:  # where it is slow, wandb tells how it fares, as protobuf
                return self._answer(200)
            if self.headers.get("Content-Encoding") == "gzip":
                data = gzip.decompress(data)
            status, answer = state.answer(self.path, json.loads(data or b"{}"))
            self._answer(status, json.dumps(answer).encode())

        def do_PUT(self) -> None:
            self._sent()
            self._answer(200)

        def _sent(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _answer(self, status: int, content: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
