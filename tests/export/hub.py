"""A Hub on a port of this machine: what huggingface_hub's client asks to make a repository, fill it and read it back."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = hashlib.sha1(b"a commit").hexdigest()


class Hub:
    """One repository.

    refuse
        Status that requests to make or fill it are answered with.
    changed
        What becomes of a file on its way back, by its name.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refuse: int | None = None
        self.changed: Callable[[str, bytes], bytes | None] = lambda name, content: content
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                return

            def do_POST(self) -> None:
                self._give(*hub.post(self.path, self._body(), self.headers))

            def do_PUT(self) -> None:
                hub.large[self.path.rpartition("/")[2]] = self._body()
                self._give(200, b"{}")

            def do_GET(self) -> None:
                self._give(*hub.get(self.path))

            do_HEAD = do_GET

            def _body(self) -> bytes:
                if self.headers.get("transfer-encoding") == "chunked":
                    pieces = []
                    while size := int(self.rfile.readline(), 16):
                        pieces.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(pieces)
                return self.rfile.read(int(self.headers.get("content-length") or 0))

            def _give(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
                hub.asked.append(f"{self.command} {self.path.partition('?')[0]}")
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def post(self, path: str, body: bytes, headers: Any) -> tuple[int, bytes]:
        """What a POST is answered."""
        asked = json.loads(body) if "ndjson" not in headers.get("content-type", "") else None
        if self.refuse is not None:
            return self.refuse, json.dumps({"error": "You don't have the rights to create a model"}).encode()
        if path.endswith("/repos/create"):
            return 200, json.dumps({"url": f"{self.url}/me/mine", "name": "me/mine"}).encode()
        if path.endswith("/validate-yaml"):
            return 200, b'{"errors": [], "warnings": []}'
        if "/preupload/" in path:
            assert asked is not None
            mode = lambda name: "lfs" if name.endswith(".safetensors") else "regular"  # noqa: E731
            told = [{"path": f["path"], "uploadMode": mode(f["path"]), "shouldIgnore": False} for f in asked["files"]]
            return 200, json.dumps({"files": told}).encode()
        if path.endswith("/info/lfs/objects/batch"):
            assert asked is not None
            upload = lambda oid: {"upload": {"href": f"{self.url}/large/{oid}"}}  # noqa: E731
            told = [{**one, "actions": upload(one["oid"])} for one in asked["objects"]]
            return 200, json.dumps({"transfer": "basic", "objects": told}).encode()
        if "/commit/" in path:
            self._commit([json.loads(line) for line in body.splitlines()])
            said = {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.url}/me/mine/commit/{COMMIT}"}
            return 200, json.dumps(said).encode()
        return 404, b"{}"

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.large[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                self.files[value["path"]] = content

    def get(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """What a GET or HEAD is answered."""
        path = path.partition("?")[0]
        given = {name: self.changed(name, content) for name, content in self.files.items()}
        files = {name: content for name, content in given.items() if content is not None}
        if "/tree/" in path:
            rows = [
                {"type": "file", "path": name, "size": len(files[name]), "oid": _etag(files[name])} for name in files
            ]
            return 200, json.dumps(rows).encode(), {}
        if path.startswith("/api/models/"):
            told = {"id": "me/mine", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            return 200, json.dumps(told).encode(), {"content-type": "application/json"}
        name = path.partition(f"/resolve/{COMMIT}/")[2]
        if name not in files:
            return 404, b"", {"x-error-code": "EntryNotFound"}
        return 200, files[name], {"etag": f'"{_etag(files[name])}"', "x-repo-commit": COMMIT}


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
