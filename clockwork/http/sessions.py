"""The calls about the caller: `GET /me`, and login and logout of the dashboard by key."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final, Literal

from aiohttp import hdrs, web

import clockwork
from clockwork.access.gate import REDACTED, SESSION, Gate, principal_of, set_session
from clockwork.access.sessions import Session, Sessions
from clockwork.domain.rights import Principal
from clockwork.http.body import Refusal, body_of
from clockwork.http.responses import json_response
from clockwork.http.routes import ACCESS, EVERY_CALL, Answer, problem, route
from clockwork.http.same_origin import Authority
from clockwork.schema import problems
from clockwork.schema.access import LoginForm, MeDocument, read_login
from clockwork.schema.json import read_json
from clockwork.schema.problems import InvalidDocument, Problem

LOGIN_BYTES_MAX: Final = 64 * 1024
"""Limit of a body that names one key, in any spelling."""
_NO_KEY: Final = problem("No key or session, or one that is not valid.", "WWW-Authenticate")
_LOGGED_IN: Final = Answer(
    description="The caller; the session's cookie is with it.", model=MeDocument, headers=("Set-Cookie",)
)
_NOT_BY_KEY: Final = problem("Callers need no key here, or log in at their issuer.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterInfo:
    """The cluster, as `GET /me` shows it."""

    auth: Literal["none", "keys", "oidc"] = "none"
    cluster: str
    banner: str | None = None
    jobs: Literal["on", "manual", "off"] = "on"
    search: Literal["on", "off"] = "on"
    links: Mapping[str, str] = field(default_factory=dict)

    def me_document(self, principal: Principal, session: Session | None) -> dict[str, Any]:
        """The `MeDocument` of this caller."""
        document: dict[str, Any] = {
            "name": principal.name,
            "auth": self.auth,
            "rights": sorted(principal.rights),
            "clients": principal.clients.patterns(),
            "topics": principal.topics.patterns(),
            "redacted": principal.redacted,
            "cluster": self.cluster,
            "version": clockwork.__version__,
            "jobs": self.jobs,
            "search": self.search,
            "links": dict(self.links),
        }
        if self.banner is not None:
            document["banner"] = self.banner
        if session is not None:
            document["session"] = {
                "issuedAt": session.issued_at_ms,
                "endsAt": session.ends_at_ms,
                "unusedUntil": session.unused_until_ms,
            }
        return document


@dataclass(frozen=True, kw_only=True, slots=True)
class MeHandlers:
    """`GET /me`."""

    cluster_info: ClusterInfo

    @route(
        "GET",
        "/me",
        name="getMe",
        tag=ACCESS,
        summary="The caller and its rights",
        description="For any key or token, and without one where none is needed. Reads no store.",
        answers={200: Answer(description="The caller.", model=MeDocument), **EVERY_CALL, 401: _NO_KEY},
    )
    async def me(self, request: web.Request) -> web.Response:
        return json_response(self.cluster_info.me_document(principal_of(request), request.get(SESSION)))


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionHandlers:
    """Login and logout of the dashboard."""

    cluster_info: ClusterInfo
    gate: Gate

    @route(
        "POST",
        "/session",
        name="logIn",
        tag=ACCESS,
        summary="Log in by key, for browsers",
        description=(
            "Gives the browser a cookie in the place of the key: it counts for 8 hours, for one hour without use, as long "
            "as the key is valid, and only beside the header `clockwork-ui: 1`. Programs send their key with every call "
            "instead. Over plain HTTP only on this machine."
        ),
        keyed=False,
        request=LoginForm,
        answers={
            **EVERY_CALL,
            200: _LOGGED_IN,
            401: problem("The key is not valid.", "WWW-Authenticate"),
            403: problem("Over plain HTTP from another machine; or from another site.", model=InvalidDocument),
            409: _NOT_BY_KEY,
            413: problem("The body is over its limit."),
            415: problem("The body is not `application/json` in UTF-8, or is compressed."),
        },
    )
    async def log_in(self, request: web.Request) -> web.Response:
        sessions = self.gate.sessions
        if sessions is None or sessions.keys is None:
            raise Refusal(_not_by_key(self.cluster_info.auth))
        check_transport(request, sessions)
        key = await read_json(await body_of(request, bytes_max=LOGIN_BYTES_MAX), read_login)
        with self.gate.counting_refusals(request):
            session, principal = sessions.for_key(key)
        REDACTED.set(principal.redacted)
        response = json_response(self.cluster_info.me_document(principal, session))
        set_session(response, sessions, session)
        sessions.log_begun(session)
        return response

    @route(
        "DELETE",
        "/session",
        name="logOut",
        tag=ACCESS,
        summary="Log out",
        description=(
            "Takes the cookie from the browser; this process refuses it from now on. A copy of it that was taken before "
            "stays usable elsewhere until it ends: removing the key ends it everywhere."
        ),
        keyed=False,
        answers={**EVERY_CALL, 204: Answer(description="There is no session now.", media_type=None)},
    )
    async def log_out(self, request: web.Request) -> web.Response:
        response = web.Response(status=HTTPStatus.NO_CONTENT.value)
        if (sessions := self.gate.sessions) is not None:
            if (cookie := request.cookies.get(sessions.cookie_name)) is not None:
                sessions.end(cookie)
            set_session(response, sessions, None)
        return response


def check_transport(request: web.Request, sessions: Sessions) -> None:
    """Return if a cookie may be given to the browser. Raises: Refusal: any reader on the way would have the session."""
    if sessions.https:
        return
    host = Authority.parse(request.headers.get(hdrs.HOST, ""), request.scheme)
    if host is not None and (ip_address(host.host).is_loopback if host.is_address else host.host == "localhost"):
        return
    raise Refusal(
        problems.refused(
            "login-needs-https",
            "The login needs HTTPS",
            "Sessions are given over plain HTTP on this machine only. Behind a proxy that ends TLS, set CLOCKWORK_UI_URL to "
            "the https address that browsers know.",
        )
    )


def _not_by_key(auth: str) -> Problem:
    return Problem(
        status=HTTPStatus.CONFLICT,
        kind="no-login-by-key",
        title="There is no login by key",
        detail="Log in at the issuer: GET /session/login."
        if auth == "oidc"
        else "Callers need no key here: CLOCKWORK_AUTH is none.",
    )
