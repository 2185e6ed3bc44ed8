"""The Python client: `AsyncClient`, its twin `Client` for programs without an event loop, and what consumers need.

    with Client("http://127.0.0.1:8080") as clockwork:
        clockwork.create("shop", "order-1", at=timedelta(minutes=15), topic="orderTopic", data={"expire": "order-1"})

It knows the service by its HTTP API alone, and imports none of the service's own libraries.
"""

from clockwork.client.aio import AsyncClient, Result
from clockwork.client.consumer import DeadLetter, Delivery, Duplicates, NotADelivery, delivery_of
from clockwork.client.errors import (
    AlreadyCancelled,
    AlreadyDelivered,
    AlreadyFailed,
    CallFailed,
    Conflict,
    Forbidden,
    InFlight,
    InvalidSchedule,
    KeyTaken,
    NotFound,
    NotSupported,
    Refused,
    TooMany,
    Unauthorized,
    Unavailable,
    VersionMismatch,
    WrongField,
)
from clockwork.client.schedules import NewSchedule, RetryPolicy, When
from clockwork.client.sync import Client
from clockwork.client.transport import Retries
from clockwork.schema.schedule import DeliveredDocument as Delivered
from clockwork.schema.schedule import FailedDocument as Failed
from clockwork.schema.schedule import PastDocument as PastSchedule
from clockwork.schema.schedule import ScheduleDocument as Schedule

__all__ = [
    "AlreadyCancelled",
    "AlreadyDelivered",
    "AlreadyFailed",
    "AsyncClient",
    "CallFailed",
    "Client",
    "Conflict",
    "DeadLetter",
    "Delivered",
    "Delivery",
    "Duplicates",
    "Failed",
    "Forbidden",
    "InFlight",
    "InvalidSchedule",
    "KeyTaken",
    "NewSchedule",
    "NotADelivery",
    "NotFound",
    "NotSupported",
    "PastSchedule",
    "Refused",
    "Result",
    "Retries",
    "RetryPolicy",
    "Schedule",
    "TooMany",
    "Unauthorized",
    "Unavailable",
    "VersionMismatch",
    "When",
    "WrongField",
    "delivery_of",
]
