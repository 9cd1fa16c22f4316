"""A report that follows a running search, served to this machine only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, final

from searchlib.arguments import file_path, real_number, whole_number
from searchlib.errors import InvalidSettings, SearchlibError
from searchlib.report.page import report_page
from searchlib.study import Study

__all__ = ["StudyServer", "watch"]

_HOST = "127.0.0.1"
#: Seconds between two questions of a page.
_INTERVAL = 2.0
#: A page is made again after so many times what making it took: the search needs the processor for itself.
_REST = 8.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@final
class _LivePage:
    """The page of a study file, made again where the file has changed and the last page is old enough."""

    def __init__(self, path: Path, interval: float) -> None:
        self._path, self._interval = path, interval
        self._lock = threading.Lock()
        self._text, self._version, self._made, self._took = "", "", 0.0, 0.0

    @property
    def version(self) -> str:
        """What the page would be called that is served now."""
        if self._text and time.monotonic() - self._made < max(self._interval, _REST * self._took):
            return self._version
        return self._on_disk()

    def text(self) -> str:
        """The page.

        Raises:
            StudyError: the study cannot be read, and there is no older page.
        """
        with self._lock:
            version = self.version
            if not self._text or version != self._version:
                start = time.monotonic()
                try:
                    with Study.open(self._path) as study:
                        text = report_page(study, live_seconds=self._interval, version=version)
                except SearchlibError:
                    if not self._text:
                        raise
                else:
                    self._text, self._version = text, version
                self._made = time.monotonic()
                self._took = self._made - start
            return self._text

    def _on_disk(self) -> str:
        """Changes whenever a search has committed something: to the file, or to the log beside it."""
        seen: list[Any] = []
        for path in (self._path, Path(f"{self._path}-wal")):
            try:
                stat = path.stat()
            except OSError:
                continue
            seen.append((path.name, stat.st_size, stat.st_mtime_ns))
        return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


@final
class StudyServer:
    """Serves the page of one study on the loopback interface, read-only. A context manager: it stops on exit.

    Only requests whose Host is this machine are answered, so that no web page that a browser has open can have its own
    name resolved to this server and read the study (DNS rebinding).

    Arguments:
        study: path of the study; its search may be running.
        port: to listen at; 0: any free one.
        interval: seconds between two questions of a page, greater than 0.

    Raises:
        StudyError: there is no study, or it cannot be read.
        InvalidSettings: the port is taken, or none.
    """

    def __init__(self, study: str | Path, *, port: int = 0, interval: float = _INTERVAL) -> None:
        port = whole_number("port", port, 0, 65_535)
        interval = float(real_number("interval", interval, "(0, inf)"))
        path = file_path("study", study)
        Study.open(path).close()
        page = _LivePage(path, interval)
        try:
            self._server = ThreadingHTTPServer((_HOST, port), _handler(page))
        except OSError as error:
            raise InvalidSettings(f"cannot listen at port {port}: {error}; use port 0 for any free one") from error
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{_HOST}:{self._server.server_address[1]}/"

    def run(self) -> None:
        """Serve until interrupted."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._server.server_close()

    def __enter__(self) -> StudyServer:
        """Serve beside the program."""
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        if self._thread is not None:
            self._thread.join()


def watch(study: str | Path, *, port: int = 0, tell: Callable[[str], object] = print) -> None:
    """Serve the live page of a study until Ctrl-C.

    Arguments:
        study: path of the study; its search may be running.
        port: to listen at; 0: any free one.
        tell: is called with the page's address.

    Raises:
        StudyError: there is no study, or it cannot be read.
        InvalidSettings: the port is taken, or none.
    """
    server = StudyServer(study, port=port)
    with contextlib.suppress(KeyboardInterrupt):
        tell(server.url)
        server.run()


def _handler(page: _LivePage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version, sys_version = "searchlib", ""
        timeout = 30  # seconds that a silent client may hold a thread

        def do_GET(self) -> None:
            port = self.connection.getsockname()[1]
            if self.headers.get("Host", "") not in {f"{_HOST}:{port}", f"localhost:{port}"}:
                self._answer(403, "text/plain", f"this page is for {_HOST} only\n")
                return
            path = self.path.partition("?")[0]
            try:
                if path == "/":
                    self._answer(200, "text/html", page.text())
                elif path == "/status.json":
                    self._answer(200, "application/json", json.dumps({"version": page.version}))
                else:
                    self._answer(404, "text/plain", "there is only /\n")
            except SearchlibError as error:
                self._answer(503, "text/plain", f"{error}\n")

        def do_HEAD(self) -> None:
            self.do_GET()

        def _answer(self, status: int, kind: str, text: str) -> None:
            data = text.encode("utf-8", "replace")
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the terminal belongs to the user."""

    return Handler
