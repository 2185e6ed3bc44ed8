"""The dashboard's page: `/ui/…` answers its shell, `/ui/assets/<digest>/…` its files, both from memory.

The page is a client of the HTTP API and of nothing else, so nothing here reads a store, and no key is needed: the page asks
for one itself. Its paths are no calls and are not in the OpenAPI document.

The digest is that of all files. A file under it never changes, so browsers keep it (`immutable`), and the shell, which names
it, is asked for anew each time (`no-cache`, with an `ETag`). Under another digest the present file is answered and not
kept: while a new release is rolled out, the shell may come from a node of the old one and a file from one of the new.

What the server knows of the page before its first request of the API stands in the shell: path prefix, theme, cluster.
"""

import gzip
import hashlib
import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Formatter, Template
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

import clockwork
from clockwork.errors import CannotStart
from clockwork.settings.model import UI_LINKS, UiSettings
from clockwork.settings.parsing import toml_of

THEME_COOKIE: Final = "theme"
THEMES: Final = ("light", "dark", "auto")
"""Values of the cookie. `auto`, or none: as the system says."""
_SHELL: Final = "index.html"
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    "css": "text/css; charset=utf-8",
    "ico": "image/x-icon",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "map": "application/json",
    "md": "text/plain; charset=utf-8",
    "png": "image/png",
    "svg": "image/svg+xml",
    "toml": "text/plain; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "woff2": "font/woff2",
}
"""Media types of files, by ending. A file without a listed ending is not served."""
_COMPRESSED: Final = frozenset({"png", "woff2"})
"""Endings of files that are compressed as they are."""
_IMMUTABLE: Final = "public, max-age=31536000, immutable"
HSTS: Final = "max-age=31536000"
LINKS_BYTES_MAX: Final = 64 * 1024

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_NO_FEATURES: Final = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer",
        "autoplay",
        "browsing-topics",
        "camera",
        "clipboard-read",
        "display-capture",
        "encrypted-media",
        "fullscreen",
        "geolocation",
        "gyroscope",
        "hid",
        "idle-detection",
        "local-fonts",
        "magnetometer",
        "microphone",
        "midi",
        "payment",
        "picture-in-picture",
        "publickey-credentials-get",
        "screen-wake-lock",
        "serial",
        "storage-access",
        "usb",
        "window-management",
        "xr-spatial-tracking",
    )
)
"""Browsers have no way to say "none"; each feature is named. Writing to the clipboard stays, for the copy buttons."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file, ready to be sent."""

    body: bytes
    compressed: bytes | None
    """None: compression gains nothing."""
    media_type: str

    @classmethod
    def of(cls, name: str, body: bytes) -> "_File":
        ending = name.rpartition(".")[2]
        compressed = None if ending in _COMPRESSED else gzip.compress(body, mtime=0)
        if compressed is not None and len(compressed) >= len(body):
            compressed = None
        return cls(body, compressed, _MEDIA_TYPES[ending])


@dataclass(frozen=True, slots=True)
class UiFiles:
    """All files of the page."""

    digest: str
    shell: str
    files: Mapping[str, _File]

    @classmethod
    @lru_cache(maxsize=1)
    def load(cls) -> "UiFiles":
        """Reads the files of the package, once a process."""
        found = dict(sorted(_walk(resources.files("clockwork.ui"))))
        digest = hashlib.sha256()
        for name, body in found.items():
            # A length before each part: two different sets of files are never one text.
            for part in (name.encode(), body):
                digest.update(b"%d:" % len(part) + part)
        shell = found.pop(_SHELL).decode()
        files = {name: _File.of(name, body) for name, body in found.items()}
        return cls(digest.hexdigest()[:16], shell, files)


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Each file that is served, and the shell: its path below the folder, and its content."""
    for each in folder.iterdir():
        if each.is_dir():
            yield from _walk(each, f"{prefix}{each.name}/")
        elif each.name == _SHELL or (
            each.name.rpartition(".")[2] in _MEDIA_TYPES and not each.name.startswith((".", "_"))
        ):
            yield prefix + each.name, each.read_bytes()


class UiPages:
    """The page's paths."""

    def __init__(self, settings: UiSettings, *, auth: str, https: bool) -> None:
        """`https`: browsers reach the node by HTTPS alone."""
        self.settings = settings
        self._files = UiFiles.load()
        self._base = path_prefix(settings.url)
        self._headers = {
            "Content-Security-Policy": _POLICY,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "same-origin",
            "Permissions-Policy": _NO_FEATURES,
        }
        if https:
            self._headers["Strict-Transport-Security"] = HSTS
        values = {
            "assets": f"{self._base}/ui/assets/{self._files.digest}",
            "auth": auth,
            "banner": settings.banner or "",
            "base": self._base,
            "cluster": settings.cluster,
            "version": clockwork.__version__,
        }
        self._shells = {theme: self._render(values | {"theme": theme}) for theme in THEMES}

    def _render(self, values: Mapping[str, str]) -> _File:
        escaped = {name: html.escape(value) for name, value in values.items()}
        return _File(Template(self._files.shell).substitute(escaped).encode(), None, "text/html; charset=utf-8")

    def add_to(self, app: web.Application) -> None:
        """Registers the page's paths."""
        app.router.add_get("/", self._to_page)
        app.router.add_get("/ui", self._to_page)
        app.router.add_get("/ui/assets/{digest}/{file:.+}", self._file)
        app.router.add_get("/ui/{page:.*}", self._shell)

    async def _to_page(self, _: web.Request) -> web.Response:
        return web.Response(status=307, headers={**self._headers, hdrs.LOCATION: f"{self._base}/ui/"})

    async def _shell(self, request: web.Request) -> web.Response:
        chosen = request.cookies.get(THEME_COOKIE, "auto")
        shell = self._shells[chosen if chosen in THEMES else "auto"]
        etag = f'"{hashlib.sha256(shell.body).hexdigest()[:16]}"'
        headers = {**self._headers, hdrs.CACHE_CONTROL: "no-cache", hdrs.ETAG: etag, hdrs.VARY: "Cookie"}
        if etag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=shell.body, headers={**headers, hdrs.CONTENT_TYPE: shell.media_type})

    async def _file(self, request: web.Request) -> web.Response:
        file = self._files.files.get(request.match_info["file"])
        if file is None:
            raise web.HTTPNotFound
        is_present = request.match_info["digest"] == self._files.digest
        headers = {
            **self._headers,
            hdrs.CONTENT_TYPE: file.media_type,
            hdrs.CACHE_CONTROL: _IMMUTABLE if is_present else "no-store",
            hdrs.VARY: "Accept-Encoding",
        }
        body = file.body
        if file.compressed is not None and _takes_gzip(request):
            body, headers[hdrs.CONTENT_ENCODING] = file.compressed, "gzip"
        return web.Response(body=body, headers=headers)


LINKS: Final[Mapping[str, frozenset[str]]] = {
    "topic": frozenset({"topic"}),
    "record": frozenset({"topic", "partition", "offset"}),
    "trace": frozenset({"traceId"}),
}
"""Links that the page can make, with the names that each may have in braces."""


def read_links(path: Path | None) -> dict[str, str]:
    """The templates of links in a file. Raises: CannotStart, naming the one that is wrong."""
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            links = toml_of(file.read(LINKS_BYTES_MAX))
        for name, template in links.items():
            if name not in LINKS:
                raise ValueError(f"{name} is not one of {', '.join(LINKS)}")
            if not isinstance(template, str):
                raise ValueError(f"{name} should be a text")
            named = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
            if not named <= LINKS[name]:
                raise ValueError(f"{name} should have no other names in braces than {', '.join(sorted(LINKS[name]))}")
            # Any other scheme would be a script, or a program of the reader's machine.
            if urlsplit(template).scheme not in {"http", "https"} or not template.isprintable():
                raise ValueError(f"{name} should begin with https://")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CannotStart(f"{UI_LINKS}: {path}: {reason}") from error
    return links


def is_page(path: str) -> bool:
    """True for a path of the page: it is no call of the API."""
    return path in {"/", "/ui"} or path.startswith("/ui/")


def path_prefix(url: str | None) -> str:
    """The path below which browsers find the node, without a slash at its end; empty if there is none."""
    return "" if url is None else urlsplit(url).path.rstrip("/")


def _takes_gzip(request: web.Request) -> bool:
    coding, _, weight = next(
        (
            part.strip().lower().partition(";")
            for part in request.headers.get(hdrs.ACCEPT_ENCODING, "").split(",")
            if part.strip().lower().startswith("gzip")
        ),
        ("", "", ""),
    )
    return coding.strip() == "gzip" and weight.strip() not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
