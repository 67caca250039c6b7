"""Serves the page to this machine alone: GET only, by this machine's own names, nothing written."""

from __future__ import annotations

import json
import mimetypes
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pulse_unlearn.errors import Problem, PulseError, StoreError
from pulse_unlearn.files import plain_file
from pulse_unlearn.store.atomic import file_errors
from pulse_unlearn.view.answers import READINGS, Filters
from pulse_unlearn.view.library import LARGEST_PAGE, Library, Page

ADDRESS = "127.0.0.1"
"""The only address that is listened on."""

_OWN = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A file of a run is looked at as its own, without the page's rights: no script, no address.
_FILE_POLICY = (
    "sandbox allow-downloads allow-popups; default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'"
)
_AS_TEXT = {".yaml", ".txt", ".csv"}
_MANY = frozenset({"kinds"})


class ViewServer(ThreadingHTTPServer):
    """The page's server; `serve_forever` runs it, `address` says where it is.

    Raises StoreError if the port is taken, or if `runs` cannot be listed.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, runs: Path, *, port: int = 0) -> None:
        self.library = Library(runs)
        self.library.runs()
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            fix = "choose another with --port, or let one be chosen with --port 0"
            where = f"{ADDRESS}:{port}"
            raise StoreError(
                Problem("cannot listen there", where, error.strerror or str(error), fix=fix)
            ) from error

    @property
    def address(self) -> str:
        """Return where a browser finds the page."""
        return f"http://{ADDRESS}:{self.server_port}/"

    @property
    def hosts(self) -> frozenset[str]:
        """Return the names that a request may call this server by.

        Any other name stands for a page elsewhere whose name was turned to this machine.
        """
        return frozenset({f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")})


class _Refused(Exception):
    """A request that is answered with a status and a reason."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: ViewServer
    server_version = "pulse-view"
    sys_version = ""
    timeout: ClassVar[float] = 60

    def do_GET(self) -> None:
        """Answer with the page, a part of a run as JSON, a picture or a file."""
        try:
            self._check_host()
            self._answer()
        except _Refused as refused:
            self._send_json({"problems": [refused.why]}, refused.status)
        except PulseError as error:
            told = [" ".join(str(problem).split()) for problem in error.problems]
            self._send_json({"problems": told}, HTTPStatus.NOT_FOUND)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # whoever asked has gone
        except (OSError, ValueError, LookupError, TypeError) as error:
            told = [f"this cannot be shown: {type(error).__name__}: {error}"]
            self._send_json({"problems": told}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _refuse_method(self) -> None:
        self.close_connection = True  # a body may follow, which is not read
        why = "nothing can be changed here: GET only"
        self._send_json({"problems": [why]}, HTTPStatus.METHOD_NOT_ALLOWED)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse_method

    def _check_host(self) -> None:
        names = self.headers.get_all("Host") or []
        if len(names) != 1 or names[0].strip().lower() not in self.server.hosts:
            why = f"this page is for this machine alone: open {self.server.address}"
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST, why)

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        library, own = self.server.library, _OWN.get(parts.path)
        if own is not None:
            file, kind = own
            self._send(files("pulse_unlearn.view").joinpath(file).read_bytes(), kind, _PAGE_POLICY)
            return
        asked = parse_qs(parts.query)
        steps = [unquote(step) for step in parts.path.split("/")[1:]]
        match steps:
            case ["api", "runs"]:
                self._send_json(library.runs())
            case ["api", "run", key]:
                self._send_json(library.overview(key))
            case ["api", "run", key, "results"]:
                self._send_json(library.results(key, _filters(asked), _page(asked)))
            case ["api", "run", key, "answers"]:
                self._send_json(library.answers(key, _filters(asked), _page(asked)))
            case ["picture", key, digest]:
                found = library.picture(key, digest)
                if found is None:
                    raise _Refused(HTTPStatus.NOT_FOUND, "there is no such picture")
                self._send(found, "image/png", _FILE_POLICY, kept=True)
            case ["file", key, *name] if name:
                self._send_file(library.file(key, "/".join(name)))
            case _:
                raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")

    def _send_file(self, path: Path) -> None:
        with file_errors(path, "read"):
            data = plain_file(path).read_bytes()
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if path.suffix in _AS_TEXT:
            kind = "text/plain"
        kind = f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
        # A browser shows neither in a sandbox, so they are saved.
        saved = path.name if path.suffix in {".pdf", ".parquet"} else ""
        self._send(data, kind, _FILE_POLICY, saved_as=saved)

    def _send_json(self, content: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        data = json.dumps(content, ensure_ascii=True).encode()
        self._send(data, "application/json", _FILE_POLICY, status=status)

    def _send(
        self,
        data: bytes,
        kind: str,
        policy: str,
        *,
        status: HTTPStatus = HTTPStatus.OK,
        kept: bool = False,
        saved_as: str = "",
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "private, max-age=86400" if kept else "no-store")
        if saved_as:
            self.send_header(
                "Content-Disposition", f"attachment; filename*=UTF-8''{quote(saved_as)}"
            )
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal shows the address alone."""


def _filters(asked: dict[str, list[str]]) -> Filters:
    """Return the filters of a query; what it does not name is any."""
    names = set(Filters.__dataclass_fields__) - _MANY
    told: dict[str, Any] = {
        name: "" if values[-1] == "any" else values[-1]
        for name, values in asked.items()
        if name in names
    }
    filters = Filters(**told, kinds=tuple(sorted(set(asked.get("kinds", ())))))
    if filters.reading not in READINGS:
        why = f"there is no such reading; allowed: {', '.join(READINGS)}"
        raise _Refused(HTTPStatus.BAD_REQUEST, why)
    return filters


def _page(asked: dict[str, list[str]]) -> Page:
    number, size = (_whole(asked.get(name, [""])[-1]) for name in ("page", "size"))
    return Page(number or 1, min(size or Page().size, LARGEST_PAGE))


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
