"""Settings of how a node is watched: its log, and traces."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSettings:
    """What is logged, and how it looks."""

    format: Annotated[
        Literal["auto", "text", "json"],
        BeforeValidator(_lower),
        Field(alias="CLOCKWORK_LOG_FORMAT", description="auto: text on a terminal, else one JSON object a line"),
    ] = "auto"
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(_lower),
        Field(alias="CLOCKWORK_LOG_LEVEL", description="one line for each thing that an operator may have to know"),
    ] = "info"
    tracing: Annotated[
        Literal["off", "otlp"],
        BeforeValidator(_lower),
        Field(
            alias="CLOCKWORK_TRACING",
            description="otlp: spans of creates and deliveries, sent as OpenTelemetry's own OTEL_… variables say",
        ),
    ] = "off"
