"""What the calls under /admin answer, as models; see `documents`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_ANSWER = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True)


class PausedDocument(BaseModel):
    """One client or topic that is paused."""

    model_config = _ANSWER

    name: str
    since_ms: Annotated[int, Field(alias="since")]
    """In epoch milliseconds."""


class PausesDocument(BaseModel):
    """Everything that is paused."""

    model_config = _ANSWER

    clients: list[PausedDocument]
    topics: list[PausedDocument]
