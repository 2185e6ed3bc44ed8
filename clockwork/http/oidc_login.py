"""The calls by which a browser logs in at the issuer: both are navigations, and end on a page of the dashboard."""

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from aiohttp import hdrs, web

from clockwork.access.gate import Gate, set_session
from clockwork.access.oidc_login import LOGIN_MS_MAX, LoginFailed, OidcLogin, page_of
from clockwork.access.sessions import Sessions
from clockwork.http import query as queries
from clockwork.http.body import Refusal
from clockwork.http.routes import ACCESS, EVERY_CALL, Answer, Parameter, problem, route
from clockwork.http.sessions import check_transport
from clockwork.http.ui import path_prefix
from clockwork.schema.problems import Problem
from clockwork.settings.model import UiSettings

_NEXT: Final = Parameter(
    name="next",
    description="Path of the page to go on to; by default the first one.",
    schema={"type": "string"},
    example="/ui/schedules?client=shop",
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class OidcLoginHandlers:
    """The two ends of a login."""

    settings: UiSettings
    gate: Gate
    login: OidcLogin | None
    """None: there is no login at an issuer."""

    @route(
        "GET",
        "/session/login",
        name="logInAtIssuer",
        tag=ACCESS,
        summary="Log in at the issuer, for browsers",
        description="Where callers need an OpenID Connect token: sends the browser to the issuer, which sends it back.",
        keyed=False,
        parameters=(_NEXT,),
        answers={
            **EVERY_CALL,
            302: Answer(description="The issuer's page.", media_type=None, headers=("Location",)),
            403: problem("Over plain HTTP from another machine."),
            409: problem("Callers log in by key, or not at all; or the dashboard is no client of the issuer."),
        },
    )
    async def log_in(self, request: web.Request) -> web.Response:
        login, sessions = self._parts()
        check_transport(request, sessions)
        given = queries.read_query(request, (_NEXT,))
        go_on_to = page_of(given.get("next"), base=path_prefix(self.settings.url))
        page, started = await login.start(go_on_to, url=self._url(request))
        response, cookie = _redirect(page), login.cookie_of(started)
        for name in login.to_forget(request.cookies, cookie):
            _set_cookie(response, sessions, name, None)
        _set_cookie(response, sessions, login.cookie_name(started.state), cookie)
        return response

    @route(
        "GET",
        "/session/callback",
        name="oidcCallback",
        tag=ACCESS,
        summary="Come back from the issuer",
        description=(
            "For the issuer alone, as the redirect URI of the dashboard. A login that fails ends on the first page, with "
            "the reason in its query."
        ),
        keyed=False,
        answers={
            **EVERY_CALL,
            302: Answer(description="A page of the dashboard.", media_type=None, headers=("Location",)),
            409: problem("There is no login at an issuer."),
        },
    )
    async def callback(self, request: web.Request) -> web.Response:
        login, sessions = self._parts()
        base = path_prefix(self.settings.url)
        # Parameters that are there twice are none.
        given = {name: text for name, text in request.query.items() if len(request.query.getall(name)) == 1}
        cookie = login.cookie_name(given.get("state", ""))
        try:
            session, go_on_to = await login.finish(request.cookies.get(cookie), given, url=self._url(request))
        except LoginFailed as error:
            extra = {"event": "login.failed", "kind": error.kind, "error": str(error)}
            log.warning("Login at the issuer failed", extra=extra | {"once_per": f"{error.kind} {request.remote}"})
            response = _redirect(f"{base}/ui/?{urlencode({'login': error.kind})}")
        else:
            response = _redirect(go_on_to)
            set_session(response, sessions, session)
            sessions.log_begun(session)
        if cookie in request.cookies:
            _set_cookie(response, sessions, cookie, None)
        return response

    def _parts(self) -> tuple[OidcLogin, Sessions]:
        if self.login is None or self.gate.sessions is None:
            raise Refusal(
                Problem(
                    status=HTTPStatus.CONFLICT,
                    kind="no-login-at-issuer",
                    title="There is no login at an issuer",
                    detail="It needs CLOCKWORK_AUTH=oidc and CLOCKWORK_OIDC_UI_CLIENT_ID.",
                )
            )
        return self.login, self.gate.sessions

    def _url(self, request: web.Request) -> str:
        """The URL of this node, as browsers know it, without a slash at its end."""
        if self.settings.url is not None:
            return self.settings.url.rstrip("/")
        return f"{request.scheme}://{request.headers.get(hdrs.HOST, '')}"


def _set_cookie(response: web.Response, sessions: Sessions, name: str, text: str | None) -> None:
    """Put the cookie of a login under way into an answer; None takes it from the browser."""
    age_s = 0 if text is None else LOGIN_MS_MAX // 1_000
    response.set_cookie(name, text or "", max_age=age_s, httponly=True, secure=sessions.https, samesite="Lax", path="/")


def _redirect(location: str) -> web.Response:
    return web.Response(status=HTTPStatus.FOUND.value, headers={hdrs.LOCATION: location})
