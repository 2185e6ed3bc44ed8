"""The Python client: `AsyncClient`, its twin `Client` for programs without an event loop, and what consumers need.

    with Client("http://127.0.0.1:8080") as clockwork:
        clockwork.create("shop", "order-1", at=timedelta(minutes=15), topic="orderTopic", data={"expire": "order-1"})

It knows the service by its HTTP API alone, and imports none of the service's own libraries.
"""

from clockwork.client.aio import AsyncClient, Result
from clockwork.client.consumer import DeadLetter, Delivery, Duplicates, JobRun, NotADelivery, delivery_of, run_of
from clockwork.client.errors import (
    AlreadyCancelled,
    AlreadyCompleted,
    AlreadyDelivered,
    AlreadyFailed,
    CallFailed,
    Conflict,
    Forbidden,
    InFlight,
    InvalidRequest,
    JobDeleted,
    JobEnded,
    JobNotDeleted,
    JobRunning,
    KeyTaken,
    NoFireTimes,
    NotFound,
    NotSupported,
    Refused,
    RunNotOpen,
    RunSuperseded,
    RunTimedOut,
    TooMany,
    TooManyRuns,
    Unauthorized,
    Unavailable,
    VersionMismatch,
    WrongField,
)
from clockwork.client.jobs import After, AnyOf, Completion, Cron, Every, Exclude, Misfire, RRule, Trigger
from clockwork.client.runs import RunInProgress
from clockwork.client.schedules import NewSchedule, RetryPolicy, When
from clockwork.client.sync import Client
from clockwork.client.transport import Retries
from clockwork.schema.activity import EventDocument as Event
from clockwork.schema.activity import MinutesDocument as Minutes
from clockwork.schema.calendar import CalendarDocument as Calendar
from clockwork.schema.clients import ClientsDocument as Clients
from clockwork.schema.forecast import ForecastDocument as Forecast
from clockwork.schema.job import BackfillDocument as Backfill
from clockwork.schema.job import FireTimeDocument as FireTime
from clockwork.schema.job import JobDocument as Job
from clockwork.schema.job import JobVersionDocument as JobVersion
from clockwork.schema.job import RunDocument as Run
from clockwork.schema.schedule import DeliveredDocument as Delivered
from clockwork.schema.schedule import FailedDocument as Failed
from clockwork.schema.schedule import PastDocument as PastSchedule
from clockwork.schema.schedule import ScheduleDocument as Schedule
from clockwork.schema.upcoming import UpcomingScheduleDocument as UpcomingSchedule
from clockwork.schema.why import WhyDocument as Why

__all__ = [
    "After",
    "AlreadyCancelled",
    "AlreadyCompleted",
    "AlreadyDelivered",
    "AlreadyFailed",
    "AnyOf",
    "AsyncClient",
    "Backfill",
    "Calendar",
    "CallFailed",
    "Client",
    "Clients",
    "Completion",
    "Conflict",
    "Cron",
    "DeadLetter",
    "Delivered",
    "Delivery",
    "Duplicates",
    "Event",
    "Every",
    "Exclude",
    "Failed",
    "FireTime",
    "Forbidden",
    "Forecast",
    "InFlight",
    "InvalidRequest",
    "Job",
    "JobDeleted",
    "JobEnded",
    "JobNotDeleted",
    "JobRun",
    "JobRunning",
    "JobVersion",
    "KeyTaken",
    "Minutes",
    "Misfire",
    "NewSchedule",
    "NoFireTimes",
    "NotADelivery",
    "NotFound",
    "NotSupported",
    "PastSchedule",
    "RRule",
    "Refused",
    "Result",
    "Retries",
    "RetryPolicy",
    "Run",
    "RunInProgress",
    "RunNotOpen",
    "RunSuperseded",
    "RunTimedOut",
    "Schedule",
    "TooMany",
    "TooManyRuns",
    "Trigger",
    "Unauthorized",
    "Unavailable",
    "UpcomingSchedule",
    "VersionMismatch",
    "When",
    "Why",
    "WrongField",
    "delivery_of",
    "run_of",
]
