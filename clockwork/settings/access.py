"""Settings of who may call and how much; read and checked by `config` like all others."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from clockwork.settings.parsing import listed, safe_url, topic_rate

_Claim = Annotated[str, Field(min_length=1, max_length=200)]
_Url = Annotated[str | None, AfterValidator(lambda v: v and safe_url(v))]


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessSettings:
    """Who may call, and how much they may create."""

    auth: Annotated[
        Literal["none", "keys", "oidc"],
        BeforeValidator(lambda v: v.lower() if isinstance(v, str) else v),
        Field(
            alias="CLOCKWORK_AUTH",
            description="who may call: anyone (none), API keys, or tokens of an OpenID Connect issuer",
        ),
    ] = "none"
    keys_file: Annotated[
        str | None,
        Field(alias="CLOCKWORK_AUTH_KEYS_FILE", description="for keys: TOML with their hashes; changes count at once"),
    ] = None
    oidc_issuer: Annotated[
        _Url, Field(alias="CLOCKWORK_OIDC_ISSUER", description="for oidc: what `iss` of a token must be")
    ] = None
    oidc_audience: Annotated[
        str | None, Field(alias="CLOCKWORK_OIDC_AUDIENCE", description="for oidc: what `aud` of a token must hold")
    ] = None
    oidc_jwks_url: Annotated[
        _Url,
        Field(
            alias="CLOCKWORK_OIDC_JWKS_URL", description="the issuer's keys; default: as its discovery document says"
        ),
    ] = None
    oidc_name_claim: Annotated[
        _Claim, Field(alias="CLOCKWORK_OIDC_NAME_CLAIM", description="who it is, for the log")
    ] = "sub"
    oidc_clients_claim: Annotated[
        _Claim, Field(alias="CLOCKWORK_OIDC_CLIENTS_CLAIM", description="clientIds and prefixes with *")
    ] = "clockwork_clients"
    oidc_topics_claim: Annotated[
        _Claim, Field(alias="CLOCKWORK_OIDC_TOPICS_CLAIM", description="topics and prefixes with *")
    ] = "clockwork_topics"
    oidc_rights_claim: Annotated[
        _Claim, Field(alias="CLOCKWORK_OIDC_RIGHTS_CLAIM", description="create, cancel, read, admin")
    ] = "clockwork_rights"
    creates_per_second: Annotated[
        int,
        Field(
            alias="CLOCKWORK_CREATES_PER_SECOND",
            ge=0,
            le=1_000_000,
            description="of one client on one node; 0: no limit",
        ),
    ] = 0
    create_bytes_per_second: Annotated[
        int,
        Field(
            alias="CLOCKWORK_CREATE_BYTES_PER_SECOND",
            ge=0,
            le=1_000_000_000,
            description="`taskData` of one client on one node; 0: no limit",
        ),
    ] = 0
    client_pending_max: Annotated[
        int,
        Field(
            alias="CLOCKWORK_CLIENT_PENDING_MAX",
            ge=0,
            le=1_000_000_000,
            description="schedules of one client whose time is ahead; soft (docs/access.md), needs lists; 0: no limit",
        ),
    ] = 0
    commands: Annotated[
        Literal["on", "off"],
        BeforeValidator(lambda v: v.lower() if isinstance(v, str) else v),
        Field(alias="CLOCKWORK_COMMANDS", description="`on`: take commands from the topic `<cluster>-commands` too"),
    ] = "off"
    commands_principal: Annotated[
        str | None,
        Field(
            alias="CLOCKWORK_COMMANDS_PRINCIPAL",
            min_length=1,
            description="whose rights commands have: a name in the keys' file, or * for all; needed unless auth is none",
        ),
    ] = None

    def disagreements(self, *, search: Literal["on", "off"]) -> Iterator[str]:
        """Values that are fine alone and wrong together."""
        if self.client_pending_max and search == "off":
            yield (
                "CLOCKWORK_CLIENT_PENDING_MAX: is counted in the index of lists, which CLOCKWORK_SEARCH=off does without; "
                "set CLOCKWORK_SEARCH=on, or no such limit"
            )
        if self.auth == "keys" and self.keys_file is None:
            yield "CLOCKWORK_AUTH_KEYS_FILE: is needed with CLOCKWORK_AUTH=keys"
        if self.auth == "oidc" and self.oidc_issuer is None:
            yield "CLOCKWORK_OIDC_ISSUER: is needed with CLOCKWORK_AUTH=oidc"
        if self.auth == "oidc" and self.oidc_audience is None:
            yield "CLOCKWORK_OIDC_AUDIENCE: is needed with CLOCKWORK_AUTH=oidc"
        if self.commands == "on" and self.auth != "none" and self.commands_principal is None:
            yield "CLOCKWORK_COMMANDS_PRINCIPAL: is needed with CLOCKWORK_COMMANDS=on, unless CLOCKWORK_AUTH is none"
        if self.commands_principal not in (None, "*") and self.auth != "keys":
            yield "CLOCKWORK_COMMANDS_PRINCIPAL: a name has no effect without CLOCKWORK_AUTH=keys"
        # A key file that nobody reads would look like protection.
        if self.auth != "keys" and self.keys_file is not None:
            yield "CLOCKWORK_AUTH_KEYS_FILE: has no effect without CLOCKWORK_AUTH=keys"
        if self.auth != "oidc" and self.oidc_issuer is not None:
            yield "CLOCKWORK_OIDC_ISSUER: has no effect without CLOCKWORK_AUTH=oidc"


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionSettings:
    """What one client's connection may take of the node's time and places."""

    connections_max: Annotated[
        int,
        Field(
            alias="CLOCKWORK_HTTP_CONNECTIONS_MAX",
            ge=1,
            le=100_000,
            description="HTTP connections at once; below the process's limit of files, or nothing else gets one",
        ),
    ] = 512
    head_timeout_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_HTTP_HEAD_TIMEOUT_MS",
            ge=10,
            le=600_000,
            description="for a client to send a request's line and headers, once it has begun",
        ),
    ] = 10_000
    send_timeout_ms: Annotated[
        int,
        Field(
            alias="CLOCKWORK_HTTP_SEND_TIMEOUT_MS",
            ge=10,
            le=600_000,
            description="for a client to take an answer",
        ),
    ] = 30_000


@dataclass(frozen=True, kw_only=True, slots=True)
class PaceSettings:
    """How fast a topic's due schedules are delivered, at most."""

    deliveries_per_second: Annotated[
        int,
        Field(
            alias="CLOCKWORK_TOPIC_DELIVERIES_PER_SECOND",
            ge=0,
            le=1_000_000,
            description="of each topic on one node, so that a catch-up does not flatten consumers; 0: no limit",
        ),
    ] = 0
    topic_rates: Annotated[
        tuple[Annotated[str, AfterValidator(topic_rate)], ...] | None,
        BeforeValidator(listed),
        Field(alias="CLOCKWORK_TOPIC_RATES", description="other limits for some topics: topic=number, by commas"),
    ] = None

    def per_second(self) -> dict[str, int]:
        """The topics with a limit of their own."""
        return {topic: int(rate) for topic, _, rate in (each.partition("=") for each in self.topic_rates or ())}
