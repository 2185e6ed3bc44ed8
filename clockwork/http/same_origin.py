"""Protection against other web sites: a browser must not carry their requests to this node.

A web page may send a `POST` without a body to any address that its reader's machine reaches, `http://127.0.0.1:8080`
included, and the browser asks no one first: that is enough to fire a schedule or to fence a shard. And a page may point the
name of its own host to this node's address once it is loaded (DNS rebinding), after which the browser takes the node for
the page's own server, and lets the page read every answer. Two checks, before anything else of a request has an effect:

    every request     `Host` is a name of this node, where callers need no key       else 403
                      (a read may have no `Host`)
    every write       the browser says that it comes from this node's own page,      else 403
    (all but GET      or says nothing of a page: then it is no browser, or the user
    and HEAD)         typed the address

`Sec-Fetch-Site` and `Origin` are what browsers say of the page; no script can set or remove them. With keys `Host` is not
checked: a page has no key, and the browser sends none by itself.

The port matters as well: another service on the same host is another site. A missing port is the scheme's usual one.
`X-Forwarded-Host` and `X-Forwarded-Proto` are not read, since any caller can send them: behind a proxy that changes `Host`
or ends TLS, CLOCKWORK_UI_URL gives the address that browsers know.
"""

import ipaddress
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from clockwork.errors import shortened
from clockwork.http.body import Refusal
from clockwork.schema import problems
from clockwork.settings.model import HttpSettings

SEC_FETCH_SITE: Final = "Sec-Fetch-Site"
_READS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
_OWN_SITES: Final = frozenset({"same-origin", "none"})
"""`same-site` is not among them: it covers every port of the host, and every host of the domain."""
_USUAL_PORTS: Final = {"http": 80, "https": 443}
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{0,5}))?", re.ASCII)
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)", re.ASCII)
"""A request target that holds a whole URL. Its authority counts then, and `Host` does not (RFC 9112, 3.2.2)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Authority:
    """A host and its port. Two spellings of one are equal."""

    host: str
    """An IP address without brackets, or a name in lower case."""
    port: int
    is_address: bool

    @classmethod
    @lru_cache(maxsize=64)
    def parse(cls, text: str, scheme: str) -> Self | None:
        """The authority of `host`, `host:port` or `[address]:port`; None if it is malformed, or the port is unknown."""
        match = _AUTHORITY.fullmatch(text)
        if match is None:
            return None
        host, digits = match.groups()
        port = int(digits) if digits else _USUAL_PORTS.get(scheme)
        if port is None:
            return None
        try:
            address = ipaddress.IPv6Address(host[1:-1]) if host.startswith("[") else ipaddress.IPv4Address(host)
        except ValueError:
            return None if host.startswith("[") else cls(_name(host), port, is_address=False)
        return cls(str(address), port, is_address=True)

    @classmethod
    def of_origin(cls, origin: str) -> Self | None:
        """The authority of `scheme://host[:port]`, as in `Origin`; None for `null` and what is no web page's origin."""
        scheme, separator, authority = origin.partition("://")
        scheme = scheme.lower()
        return cls.parse(authority, scheme) if separator and scheme in _USUAL_PORTS else None


@dataclass(frozen=True, kw_only=True, slots=True)
class SameOrigin:
    """The two checks."""

    hosts: frozenset[str] | None
    """Names of this node beside `localhost` and every IP address; None: `Host` is not checked."""
    page: Authority | None
    """The outside address of the node's own page, where it is not `Host`."""

    @classmethod
    def of(cls, settings: HttpSettings) -> Self:
        hosts = frozenset(map(_name, settings.hosts or ())) | {"localhost"}
        page = None
        if settings.ui_url is not None:
            scheme, _, rest = settings.ui_url.partition("://")
            page = Authority.parse(rest.partition("/")[0], scheme.lower())
        return cls(hosts=hosts if settings.checks_host else None, page=page)

    def check(self, request: web.Request) -> None:
        """Raises: Refusal."""
        given = _host_of(request)
        host = None if given is None else Authority.parse(given, request.scheme)
        is_read = request.method in _READS
        # Every browser sends Host, so a read without one is not DNS rebinding; health probes of HTTP/1.0 send none.
        if not (given is None and is_read) and not self._is_known(host):
            raise _refusal(
                "unknown-host",
                "The node is not known by this name",
                f"Host {shortened(given or '')!a} is not a name of this node. While CLOCKWORK_AUTH is none, Host should "
                "be an IP address, localhost, or a name in CLOCKWORK_HTTP_HOSTS.",
            )
        if is_read:
            return
        if not _OWN_SITES.issuperset(request.headers.getall(SEC_FETCH_SITE, ())):
            raise _of_another_site(SEC_FETCH_SITE, request.headers.getall(SEC_FETCH_SITE))
        origins = request.headers.getall(hdrs.ORIGIN, ())
        own = {authority for authority in (host, self.page) if authority is not None}
        if not own.issuperset(map(Authority.of_origin, origins)):
            raise _of_another_site(hdrs.ORIGIN, origins)

    def _is_known(self, host: Authority | None) -> bool:
        return self.hosts is None or (host is not None and (host.is_address or host.host in self.hosts))


def same_origin(settings: HttpSettings) -> Middleware:
    """The middleware that refuses what a browser carries here from another site."""
    checks = SameOrigin.of(settings)

    @web.middleware
    async def refuse_other_sites(request: web.Request, handler: Handler) -> web.StreamResponse:
        checks.check(request)
        return await handler(request)

    return refuse_other_sites


def _host_of(request: web.Request) -> str | None:
    """The host that the request names; None if it names none, as HTTP/1.0 allows."""
    target = _ABSOLUTE.match(request.raw_path)
    return request.headers.get(hdrs.HOST) if target is None else target.group(1)


def _name(host: str) -> str:
    """A host's name in its one form: the dot at the end only says that the name is complete."""
    return host.lower().removesuffix(".")


def _of_another_site(header: str, values: Iterable[str]) -> Refusal:
    return _refusal(
        "other-site",
        "A write from another site",
        f"{header} {shortened(', '.join(values))!a}: only the node's own pages may write to it. "
        "Behind a proxy, CLOCKWORK_UI_URL is the address that browsers know.",
    )


def _refusal(kind: str, title: str, detail: str) -> Refusal:
    log.warning(
        "Request refused: its Host or its page is not this node's",
        extra={"event": "http.other_site", "error": detail, "once_per": kind},
    )
    return Refusal(problems.refused(kind, title, detail))
