"""The Hugging Face hub in miniature on 127.0.0.1: as much of its HTTP interface as its clients ask for, and its faults.

It serves the models and data sets in one folder, `root/owner/name/...`, and answers 404 to everything else, in the
hub's own manner. As there, the content of large files lies at another host, and their ETag is their SHA-256.
"""

import json
import re
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".parquet")
REPOSITORY = re.compile(
    r"(?:/api)?(?:/datasets|/models)?/(?P<id>[^/]+/[^/]+)"
    r"(?:/(?P<verb>resolve|tree|revision|paths-info)/(?P<revision>[^/]+))?"
    r"(?:/(?P<path>.*))?"
)
CONTENT = re.compile(r"/content/(?P<path>.+)")


@dataclass
class Fault:
    """What befalls the first `times` requests of which 'METHOD /path' matches `where`.

    status, headers: the answer instead. cut: bytes of the content after which the connection is closed, or reset.
    stall: seconds until the answer comes. flip: whether one byte of the content is another.
    """

    where: str
    times: int = 1_000_000
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    reset: bool = False
    stall: float = 0
    flip: bool = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: ClassVar[Path]
    faults: ClassVar[Sequence[Fault]]
    log: ClassVar[list[str]]
    fault: Fault | None

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        self.log.append(f"{request} {self.headers.get('Range', '')}".strip())
        self.fault = next((f for f in self.faults if f.times > 0 and re.search(f.where, request)), None)
        if self.fault is not None:
            self.fault.times -= 1
            threading.Event().wait(self.fault.stall)
            if self.fault.status is not None:
                return self.answer(self.fault.status, b"", self.fault.headers)
        if content := CONTENT.fullmatch(path):
            return self.send_content((self.root / content["path"]).read_bytes(), {})
        return self.answer_of(REPOSITORY.fullmatch(path), body)

    do_HEAD = do_POST = do_GET

    def answer_of(self, match: re.Match[str] | None, body: bytes) -> None:
        if match is None or not (self.root / match["id"]).is_dir():
            return self.answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        if match["revision"] not in (None, "main", COMMIT):
            return self.answer(404, b'{"error": "Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
        folder = self.root / match["id"]
        if match["verb"] == "resolve":
            return self.resolve(folder / match["path"])
        if match["verb"] == "tree":
            return self.send_json([self.entry(p, folder) for p in sorted((folder / (match["path"] or "")).rglob("*"))])
        if match["verb"] == "paths-info":
            wanted = json.loads(body)["paths"]
            return self.send_json([self.entry(folder / p, folder) for p in wanted if (folder / p).exists()])
        return self.send_json({"id": match["id"], "sha": COMMIT, "private": False, "gated": False, "siblings": []})

    def entry(self, path: Path, repository: Path) -> dict[str, Any]:
        kind = {"type": "directory", "size": 0} if path.is_dir() else {"type": "file", "size": path.stat().st_size}
        return kind | {"path": str(path.relative_to(repository)), "oid": sha1(str(path).encode()).hexdigest()}

    def resolve(self, path: Path) -> None:
        headers = {"X-Repo-Commit": COMMIT}
        if not path.is_file():
            return self.answer(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        content = path.read_bytes()
        if path.suffix not in LARGE:
            of_git = sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return self.send_content(content, headers | {"ETag": f'"{of_git}"'})
        port = self.server.server_address[1]
        location = f"http://localhost:{port}/content/{path.relative_to(self.root)}"  # another host: no 127.0.0.1
        linked = {"X-Linked-ETag": f'"{sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        return self.answer(302, b"", headers | linked | {"Location": location})

    def send_content(self, content: bytes, headers: dict[str, str]) -> None:
        if self.fault is not None and self.fault.flip:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
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
        if self.command == "HEAD":
            return
        if self.fault is None or self.fault.cut is None:
            self.wfile.write(body)
            return
        self.wfile.write(body[: self.fault.cut])
        self.close_connection = True
        if self.fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def handle(self) -> None:
        with suppress(ConnectionError):  # of a client that did not wait for a stalled answer
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(root: Path, faults: Sequence[Fault] = (), log: list[str] | None = None) -> Iterator[str]:
    """The repositories in `root/owner/name/`, at the address that it yields (a value for HF_ENDPOINT).

    log: gets each request, as 'METHOD /path' and the range of bytes, if one was asked for.
    """
    facts = {"root": root, "faults": faults, "log": [] if log is None else log}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), facts))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def redirect(monkeypatch: Any, endpoint: str) -> None:
    """Make the hub's clients in this process ask `endpoint`, as HF_ENDPOINT does before they are imported."""
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
