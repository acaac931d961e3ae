"""The part of a W&B server that a run needs, on the loopback interface: it takes what it is sent and keeps it."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

KEY = "0" * 40
"""Any key of this length is let in."""


class Server(ThreadingHTTPServer):
    """What it was sent, in the order in which it came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.operations: list[tuple[str, dict[str, Any]]] = []
        """(name, variables) of each GraphQL request."""
        self.streams: list[tuple[str, dict[str, Any]]] = []
        """(run id, body) of each block of a file stream."""
        self.files: dict[str, bytes] = {}
        """Path -> content of each uploaded file."""

    def runs(self) -> dict[str, dict[str, Any]]:
        """Run id -> what it was created and later updated with."""
        told: dict[str, dict[str, Any]] = {}
        for name, variables in self.operations:
            if name == "UpsertBucket":
                given = {key: value for key, value in variables.items() if value is not None}
                told.setdefault(variables["name"], {}).update(given)
        return told

    def history(self, run_id: str) -> list[dict[str, Any]]:
        """The rows of a run; those that come later at the same place replace the earlier."""
        rows: dict[int, dict[str, Any]] = {}
        for name, body in self.streams:
            part = body.get("files", {}).get("wandb-history.jsonl") if name == run_id else None
            if part:
                rows |= dict(enumerate(map(json.loads, part["content"]), part["offset"]))
        return [rows[place] for place in sorted(rows)]

    def summary(self, run_id: str) -> dict[str, Any]:
        """The last summary of a run."""
        parts = [body["files"] for name, body in self.streams if name == run_id and body.get("files")]
        found = [part["wandb-summary.json"] for part in parts if "wandb-summary.json" in part]
        return json.loads(found[-1]["content"][-1])

    def exit_codes(self, run_id: str) -> list[int]:
        """How the attempts of a run ended."""
        return [body["exitcode"] for name, body in self.streams if name == run_id and body.get("complete")]


class Handler(BaseHTTPRequestHandler):
    """Answers as if everything had been there already."""

    server: Server

    def do_POST(self) -> None:
        content = self._content()
        if self.path.endswith("/graphql"):
            request = json.loads(content)
            name = re.findall(r"(?:query|mutation)\s+(\w+)", request["query"])[0]
            self.server.operations.append((name, request.get("variables") or {}))
            self._answer({"data": self._data(name, request.get("variables") or {})})
        else:
            if run_id := re.findall(r"/([^/]+)/file_stream$", self.path):
                self.server.streams.append((run_id[0], json.loads(content)))
            self._answer({})

    def do_PUT(self) -> None:
        self.server.files[self.path] = self._content()
        self._answer({})

    def do_GET(self) -> None:
        self._answer({})

    def _data(self, name: str, told: dict[str, Any]) -> dict[str, Any]:
        user = {"id": "1", "entity": "us", "username": "us", "name": "us", "email": "", "flags": "{}", "admin": False}
        user |= {"teams": {"edges": []}, "apiKeys": {"edges": []}, "deletedAt": None}
        if name == "UpsertBucket":
            known = sum(asked == name and other["name"] == told["name"] for asked, other in self.server.operations) > 1
            return {"upsertBucket": {"bucket": self._bucket(told["name"]), "inserted": not known}}
        if name == "RunResumeStatus":
            known = told["name"] in self.server.runs()
            bucket = self._bucket(told["name"]) if known else None
            return {"model": {"id": "p", "name": "attelbo", "entity": {"id": "1", "name": "us"}, "bucket": bucket}}
        if name == "CreateRunFiles":
            place = f"{self.server.address}/files/{told['run']}"
            files = [{"name": path, "uploadUrl": f"{place}/{path}"} for path in told["files"]]
            return {"createRunFiles": {"runID": told["run"], "uploadHeaders": [], "files": files}}
        if name == "GetProjects":
            project = {"__typename": "Project", "id": "p", "name": "attelbo", "entityName": "us", "isBenchmark": False}
            project |= {"createdAt": "2026-01-01T00:00:00", "user": user}
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"models": {"pageInfo": page, "edges": [{"node": project}]}}
        if name == "upsertView":
            view = {key: told[key] for key in ("type", "name", "displayName", "description", "spec")}
            view |= {"id": "view-1", "updatedAt": None}
            view |= {"project": {"id": "p", "name": told["projectName"], "entityName": told["entityName"]}}
            return {"upsertView": {"view": view, "inserted": True}}
        return {"serverInfo": {"features": []}, "viewer": user}

    def _bucket(self, run_id: str) -> dict[str, Any]:
        """A run, as it stands."""
        run, rows = self.server.runs()[run_id], self.server.history(run_id)
        return {
            **{"id": run_id, "name": run_id, "displayName": run["displayName"], "description": "", "notes": ""},
            **{"sweepName": None, "project": {"name": run["project"], "entity": {"name": "us"}}},
            **{"historyLineCount": len(rows), "eventsLineCount": 0, "logLineCount": 0, "eventsTail": "[]"},
            **{"historyTail": json.dumps([json.dumps(rows[-1])] if rows else [])},
            **{"summaryMetrics": json.dumps(self.server.summary(run_id)) if rows else "{}"},
            **{"config": run["config"], "tags": run["tags"], "wandbConfig": '{"t": 1}'},
        }

    def _content(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def logged_in(folder: Path) -> Iterator[Server]:
    """A server that this user is logged in at; what wandb remembers of the settings before is forgotten.

    Args:
        folder: this user's own files.
    """
    import wandb

    with Server() as server, pytest.MonkeyPatch.context() as patch:
        Thread(target=server.serve_forever, daemon=True).start()
        patch.setenv("HOME", str(folder))
        patch.setenv("WANDB_BASE_URL", server.address)
        patch.setenv("WANDB_API_KEY", KEY)
        for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR", "ERROR_REPORTING"):
            patch.setenv(f"WANDB_{name}", str(folder))
            patch.delenv(f"WANDB_{name}")
        wandb.teardown()
        yield server
        wandb.teardown()
        server.shutdown()
