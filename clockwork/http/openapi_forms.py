"""What requests look like that are read item by item or field by field; these models describe, they read nothing."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from clockwork.schema.policies import OnLateName, RetryForm
from clockwork.schema.schedule import AHEAD_MS_MAX, ClientIdText, DueMs, KeyForm, KeyText, ScheduleForm, TopicName

BATCH_ITEMS_MAX = 1_000

_FORM = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class DeliveryChangeForm(BaseModel):
    """What changes about the delivery; the rest stays."""

    model_config = _FORM

    topic: TopicName | None = None
    guarantee: Literal["exactly_once", "at_least_once"] | None = None
    headers: dict[str, str] | None = None
    """Replaces all of them."""
    deadline: Annotated[int | None, Field(ge=0, le=AHEAD_MS_MAX)] = None
    on_late: Annotated[OnLateName | None, Field(alias="onLate")] = None
    retry: RetryForm | None = None


class ChangeForm(BaseModel):
    """What changes about a pending schedule; a field that is left out stays as it is."""

    model_config = _FORM

    client_id: Annotated[ClientIdText | None, Field(alias="clientId")] = None
    """Only as the path says; it cannot be changed."""
    schedule_key: Annotated[KeyText | None, Field(alias="scheduleKey")] = None
    """Only as the path says; it cannot be changed."""
    due_ms: Annotated[DueMs | None, Field(alias="scheduleTime")] = None
    ordering_key: Annotated[KeyText | None, Field(alias="orderingKey")] = None
    task_data: Annotated[Any, Field(alias="taskData")] = None
    task_data_encoding: Annotated[Literal["json", "base64"] | None, Field(alias="taskDataEncoding")] = None
    delivery: DeliveryChangeForm | None = None


class RearmForm(BaseModel):
    """When a failed schedule is due again."""

    model_config = _FORM

    due_ms: Annotated[DueMs | None, Field(alias="scheduleTime")] = None
    """By default now."""


class NothingForm(BaseModel):
    """The path says all."""

    model_config = _FORM


class CreateManyForm(BaseModel):
    """Schedules to create, each for itself."""

    model_config = _FORM

    schedules: Annotated[list[ScheduleForm], Field(max_length=BATCH_ITEMS_MAX)]


class CancelManyForm(BaseModel):
    """Schedules to cancel, each for itself."""

    model_config = _FORM

    schedules: Annotated[list[KeyForm], Field(max_length=BATCH_ITEMS_MAX)]
