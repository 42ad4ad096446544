"""A hub on the loopback interface: the few routes and headers that the hub client needs, with configurable faults.

Commands run against it in separate processes, because the client reads its environment when it is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

REPO = "org/tiny"
TOKEN = "hf_secretThatMustNotShow"
SIGNATURE = "signature-that-must-not-show"
# Runs `download` in a process without torch and prints the folder or the error as the command does. Sleeps between
# attempts are replaced by writing their length to a file, which tests compare with a bound.
DOWNLOAD_WITHOUT_SLEEP = """
import os, sys, time
def sleep(seconds):
    with open(os.environ["SLEPT"], "a") as slept:
        slept.write(f"{seconds}\\n")
if os.environ["SLEPT"]:
    time.sleep = sleep
from pathlib import Path
from ast_cli.hub.download import download
from ast_cli.errors import AstError
repo_id, revision, *output_dir = sys.argv[1:]
try:
    print(download(repo_id, revision, *map(Path, output_dir)))
except AstError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


@dataclass
class Fault:
    """A fault in the body of a file or, if of kind "status", in the answer to any request.

    Attributes:
        kind: status: answer with an HTTP status; cut: close the connection after half the body; reset: reset it there,
            like a crash; wrong_size: a shorter body with a matching Content-Length; wrong_bytes: a wrong body of the
            right size; stall: half the body, then nothing until the hub is released.
        times: Number of requests that the fault affects.
        status: HTTP status for kind "status".
        headers: Additional headers for kind "status".
    """

    kind: Literal["status", "cut", "reset", "wrong_size", "wrong_bytes", "stall"]
    times: int = 1_000
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A request that the hub received."""

    method: str
    path: str
    authorization: str | None


class FakeHub:
    """Checkpoints served from memory.

    Attributes:
        repos: Content of the files by repository and file name.
        revisions: Commit of each branch or tag, the same for all repositories.
        faults: Faults by file name, or by "api" for the list of files.
        redirect_to: Host to which requests for large files are redirected, as on the real hub, or None.
        states_hashes: Whether the list of files contains sizes and hashes.
        requests: Requests received, in order.
        listed: Set whenever a list of files was requested.
        stalled: Set once a stall has begun; `released` ends it.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.revisions = {"main": "a" * 40}
        self.faults: dict[str, Fault] = {}
        self.redirect_to: str | None = None
        self.states_hashes = True
        self.requests: list[Request] = []
        self.listed = threading.Event()
        self.stalled = threading.Event()
        self.released = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def stop(self) -> None:
        """Close the port, so that connections are refused."""
        if self.thread.is_alive():
            self.released.set()
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()

    def asked(self, method: str, ending: str) -> int:
        """Count the requests of a method whose path, without the query string, has this ending."""
        return sum(request.method == method and request.path.endswith(ending) for request in self.requests)

    def list_files(self, repo_id: str, commit: str) -> dict[str, Any]:
        """Return the answer of /api/models."""
        siblings: list[dict[str, Any]] = []
        for name, content in self.repos[repo_id].items():
            sibling: dict[str, Any] = {"rfilename": name}
            if self.states_hashes:
                sibling |= {"size": len(content), "blobId": git_hash(content)}
            if self.states_hashes and is_large(name):
                sha256 = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
        return {"id": repo_id, "sha": commit, "siblings": siblings}


def git_hash(content: bytes) -> str:
    """Return the name Git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(name: str) -> bool:
    """Return whether the hub stores a file outside Git (LFS), with its SHA-256."""
    return name.endswith((".safetensors", ".bin"))


def _handler_of(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if path == "/api/agent-harnesses":  # the client's own statistics; asked at most once a day, and not always
                self.reply(404, b"", {})
                return
            hub.requests.append(Request(self.command, path, self.headers.get("Authorization")))
            try:
                if path.startswith("/api/models/"):
                    self.answer_list(path.removeprefix("/api/models/"))
                else:
                    repo_id, _, rest = path.lstrip("/").partition("/resolve/")
                    revision, _, name = rest.partition("/")
                    self.answer_file(repo_id, revision, name)
            except (BrokenPipeError, ConnectionResetError):  # the client was killed or has given up
                self.close_connection = True

        def answer_list(self, rest: str) -> None:
            hub.listed.set()
            repo_id, _, revision = rest.partition("/revision/")
            if hub.faults.get("api", Fault("cut")).kind == "stall":
                hub.released.wait(timeout=60)
            if self.fails("api") or not self.knows(repo_id, revision or "main"):
                return
            body = json.dumps(hub.list_files(repo_id, self.commit_of(revision or "main"))).encode()
            self.reply(200, body, {"Content-Type": "application/json"})

        def answer_file(self, repo_id: str, revision: str, name: str) -> None:
            if not self.knows(repo_id, revision):
                return
            if name not in hub.repos[repo_id]:
                self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            content = hub.repos[repo_id][name]
            large = is_large(name)
            etag = hashlib.sha256(content).hexdigest() if large else git_hash(content)
            headers = {"X-Repo-Commit": self.commit_of(revision), "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
            if large:
                headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
            if large and hub.redirect_to and not self.headers["Host"].startswith(hub.redirect_to):
                headers["Location"] = f"http://{hub.redirect_to}:{hub.port}{self.path}?X-Signature={SIGNATURE}"
                self.reply(302, b"", headers)
            elif not self.fails(name):
                self.send_content(name, content, headers)

        def send_content(self, name: str, content: bytes, headers: dict[str, str]) -> None:
            fault = self.next_fault(name) if self.command == "GET" else None
            start = 0
            if wanted := self.headers.get("Range"):
                start = int(wanted.removeprefix("bytes=").split("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            body = content[start:]
            if fault == "wrong_size":
                body = body[:-7]
            elif fault == "wrong_bytes":
                body = body[:-1] + bytes([body[-1] ^ 1])
            sent = len(body) // 2 if fault in ("cut", "reset", "stall") else len(body)
            self.reply(206 if start else 200, body, headers, sent)
            if fault == "stall":
                self.wfile.flush()
                hub.stalled.set()
                hub.released.wait(timeout=60)
            elif fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                socket.close(self.connection.detach())
            self.close_connection = fault is not None

        def knows(self, repo_id: str, revision: str) -> bool:
            if repo_id not in hub.repos:
                self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif revision not in (*hub.revisions, *hub.revisions.values()):
                self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
            else:
                return True
            return False

        def commit_of(self, revision: str) -> str:
            return hub.revisions.get(revision, revision)

        def fails(self, name: str) -> bool:
            fault = hub.faults.get(name)
            if fault is None or fault.kind != "status" or fault.times == 0:
                return False
            fault.times -= 1
            self.reply(fault.status, b"", fault.headers)
            return True

        def next_fault(self, name: str) -> str | None:
            fault = hub.faults.get(name)
            if fault is None or fault.times == 0:
                return None
            fault.times -= 1
            return fault.kind

        def reply(self, status: int, body: bytes, headers: dict[str, str], sent: int | None = None) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[:sent])

    return Handler


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Serve until the block ends."""
    hub = FakeHub()
    try:
        yield hub
    finally:
        hub.stop()


@dataclass(frozen=True)
class Run:
    """A finished process; ``slept_s`` lists the waits between attempts, which were recorded instead of slept."""

    exit_code: int
    stdout: str
    stderr: str
    slept_s: list[float]


def client_environment(hub: FakeHub, hf_home: Path, **extra: str) -> dict[str, str]:
    """Return the environment of a process that uses only this hub, with a token."""
    unwanted = ("HF_", "HUGGINGFACE", "TRANSFORMERS_", "AST_MODEL")
    proxies = {"http_proxy", "https_proxy", "all_proxy"}
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(unwanted) and key.lower() not in proxies
    }
    return inherited | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.port}",
        "HF_HOME": str(hf_home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",  # as on a machine without the hf_xet package
        "OMP_NUM_THREADS": "1",
        "SLEPT": str(hf_home.with_suffix(".slept")),
        **extra,
    }


def start(environment: dict[str, str], *args: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start a Python process with these arguments."""
    return subprocess.Popen([sys.executable, *args], env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)


def finish(process: subprocess.Popen[str], slept: Path | None = None) -> Run:
    """Wait for a started process, and check that its output contains neither the token nor a signature."""
    stdout, stderr = process.communicate(timeout=120)
    assert TOKEN not in stdout + stderr
    assert SIGNATURE not in stdout + stderr
    waits = [float(line) for line in slept.read_text().splitlines()] if slept and slept.exists() else []
    return Run(process.returncode, stdout, stderr, waits)


def run_ast(hub: FakeHub, hf_home: Path, *args: str, **extra: str) -> Run:
    """Run ``ast`` with the fake hub and wait for it."""
    return finish(start(client_environment(hub, hf_home, **extra), "-m", "ast_cli", *args))


def start_download(
    hub: FakeHub, hf_home: Path, *, revision: str = "main", output_dir: Path | None = None, **extra: str
) -> subprocess.Popen[str]:
    """Start `download` of `REPO` in a process of its own."""
    args = [REPO, revision] + ([str(output_dir)] if output_dir else [])
    return start(client_environment(hub, hf_home, **extra), "-c", DOWNLOAD_WITHOUT_SLEEP, *args)


def run_download(
    hub: FakeHub, hf_home: Path, *, revision: str = "main", output_dir: Path | None = None, **extra: str
) -> Run:
    """Run the process of `start_download` and wait for it."""
    slept = hf_home.with_suffix(".slept")
    slept.unlink(missing_ok=True)
    return finish(start_download(hub, hf_home, revision=revision, output_dir=output_dir, **extra), slept)


def final_files(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files with final names in a cache or folder, without locks and temporary files."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and ("snapshots" in file.parts or "blobs" in file.parts or "hub" not in file.parts)
        and file.suffix not in (".incomplete", ".lock", ".tmp")
    }
