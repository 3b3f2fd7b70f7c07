"""A data hub in miniature on 127.0.0.1: as much of the Hugging Face Hub's HTTP interface as `datasets` asks for.

It serves the files of one folder, `root/owner/name/...`, and answers 404 to everything else, in the hub's own manner.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROUTE = re.compile(
    r"(?:/api)?/datasets/(?P<id>[^/]+/[^/]+)"
    r"(?:/(?P<verb>resolve|tree|revision|paths-info)/[^/]+)?"
    r"(?:/(?P<path>.*))?"
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: ClassVar[Path]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match = ROUTE.fullmatch(unquote(urlsplit(self.path).path))
        folder = self.root / match["id"] if match else self.root / "missing"
        if match is None or not folder.is_dir():
            return self.answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        if match["verb"] == "resolve":
            return self.send_content(folder / match["path"])
        if match["verb"] == "tree":
            return self.send_json(self.entries(folder / (match["path"] or ""), folder))
        if match["verb"] == "paths-info":
            wanted = json.loads(body)["paths"]
            return self.send_json([self.entry(folder / p, folder) for p in wanted if (folder / p).exists()])
        return self.send_json({"id": match["id"], "sha": COMMIT, "private": False, "gated": False, "siblings": []})

    do_HEAD = do_POST = do_GET

    def entries(self, folder: Path, repo: Path) -> list[dict[str, object]]:
        return [self.entry(path, repo) for path in sorted(folder.rglob("*"))]

    def entry(self, path: Path, repo: Path) -> dict[str, object]:
        kind = {"type": "directory", "size": 0} if path.is_dir() else {"type": "file", "size": path.stat().st_size}
        return kind | {"path": str(path.relative_to(repo)), "oid": sha1(str(path).encode()).hexdigest()}

    def send_content(self, path: Path) -> None:
        if not path.is_file():
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = path.read_bytes()
        headers = {"ETag": f'"{sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self.answer(200, content, headers | {"Accept-Ranges": "bytes"})
        start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        part = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        return self.answer(206, content[start : end + 1], headers | part)

    def send_json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """The data sets in `root/owner/name/`, at the address that it yields (a value for HF_ENDPOINT)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"root": root}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
