"""A server on this machine that speaks the protocol of the Hugging Face hub, and a small checkpoint for it to serve.

A HEAD or GET of /{repo}/resolve/{revision}/{file} is answered with a redirect to another host, which has the content;
the redirect itself says commit, ETag and size. What the hub refuses has a status and a code.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from safetensors.torch import save

from spai_train.detectors.community_forensics import CommunityForensics, CommunityForensicsConfig, to_content
from spai_train.published import PublishedFile

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server does.

    :param file: that it has, at every revision in `revisions`
    :param refusal: status and code with which it answers instead
    :param linked_size: bytes that it claims the file has; None is the truth
    :param cut: bytes of the file that it sends before it closes the connection; it then answers 500
    :param asked: methods and paths of all requests
    """

    file: PublishedFile
    content: bytes
    revisions: tuple[str, ...] = ()
    refusal: tuple[int, str] | None = None
    linked_size: int | None = None
    cut: int | None = None
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Of a process for which this is the hub."""
        return {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0"}

    @property
    def downloads(self) -> int:
        """How often the content was asked for."""
        return sum(asked.startswith("GET /content/") for asked in self.asked)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The server, until the block ends."""

    class Handler(_Handler):
        does = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    does: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Is silent."""

    def _answer(self) -> None:
        hub = self.does
        hub.asked.append(f"{self.command} {self.path}")
        if hub.refusal:
            self._refuse(*hub.refusal)
        elif self.path.startswith("/content/"):
            self._send_content(hub)
        elif not self.path.startswith(f"/{hub.file.repo}/resolve/"):
            self._refuse(401, "RepoNotFound")
        else:
            _, revision, name = self.path.removeprefix(f"/{hub.file.repo}").split("/", 3)[1:]
            self._redirect(hub, revision, name)

    def _redirect(self, hub: Hub, revision: str, name: str) -> None:
        if revision not in (*hub.revisions, hub.file.revision):
            return self._refuse(404, "RevisionNotFound")
        if name != hub.file.name:
            return self._refuse(404, "EntryNotFound")
        size = len(hub.content) if hub.linked_size is None else hub.linked_size
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{hub.port}/content/{name}")
        self.send_header("X-Repo-Commit", revision if len(revision) == len(COMMIT) else COMMIT)
        self.send_header("X-Linked-ETag", f'"{hashlib.sha256(hub.content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(size))
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def _send_content(self, hub: Hub) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(hub.content)))
        self.end_headers()
        self.wfile.write(hub.content[: hub.cut])
        if hub.cut is not None:
            hub.refusal = 500, ""
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def small_checkpoint() -> bytes:
    """Community Forensics' network of width 64 and two blocks, of random weights, as the hub's files have it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CommunityForensics(CommunityForensicsConfig(side=224, patch_size=32, width=64, depth=2, resize=256))
        torch.nn.init.normal_(model.head.linear.weight)
    return save(to_content(model)["model"])


def leftovers(folder: Path) -> list[str]:
    """Files below a folder that hold something, but those of locks and of huggingface_hub's bookkeeping."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return [path.name for path in files if path.parent.name != "refs" and path.name != "CACHEDIR.TAG"]
