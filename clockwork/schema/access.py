"""Who calls: the answer of `GET /me`, and the body of a login."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from clockwork.schema.validation import DOCUMENT, FORM, read_form

KEY_CHARS_MAX = 8_000
"""As many as a key in a header may have."""


class LoginForm(BaseModel):
    """A login by key."""

    model_config = FORM

    key: Annotated[str, Field(min_length=1, max_length=KEY_CHARS_MAX)]
    """An API key."""


class SessionDocument(BaseModel):
    """The session of a login; times are epoch milliseconds."""

    model_config = DOCUMENT

    issued_at_ms: Annotated[int, Field(alias="issuedAt")]
    """Time of the login."""
    ends_at_ms: Annotated[int, Field(alias="endsAt")]
    """Time at which it ends in any case."""
    unused_until_ms: Annotated[int, Field(alias="unusedUntil")]
    """Time at which it ends if it is not used until then."""


class MeDocument(BaseModel):
    """The caller, and the cluster that is called."""

    model_config = DOCUMENT

    name: str
    """Name of the key or token; `anyone` where none is needed."""
    auth: Literal["none", "keys", "oidc"]
    """The credential that callers need."""
    rights: list[str]
    clients: list[str]
    """Names, and prefixes with a `*` behind them; `*` alone covers all."""
    topics: list[str]
    redacted: bool
    """True: its answers show no `taskData` and no values of headers."""
    cluster: str
    version: str
    """The release of this node."""
    banner: str | None = None
    """Word that the dashboard shows on every page, such as production. Absent: none."""
    jobs: Literal["on", "manual", "off"]
    """Recurring jobs: kept and run, kept and run by hand only, or not kept."""
    search: Literal["on", "off"]
    """`off`: schedules cannot be listed."""
    links: dict[str, str]
    """Templates of addresses elsewhere, for the dashboard: of a `topic`, a `record`, a `trace`."""
    session: SessionDocument | None = None
    """Absent for a caller with a key or token of its own."""


def read_login(document: Any) -> str:
    """The key of a login. Raises: InvalidInput."""
    return read_form(LoginForm, document).key
