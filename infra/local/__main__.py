"""`python -m infra.local`: the services in the foreground, until Ctrl-C.

Prints a line each when they answer, ready to be pasted into a shell or read by a script:

    KAFKA_BROKERS=127.0.0.1:24518
    DYNAMODB_ENDPOINT=http://127.0.0.1:21077
    CLOCKWORK_POSTGRES_URL=postgresql://clockwork@127.0.0.1:23981/postgres     (with --postgres)
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

from infra.local.errors import LocalServicesError
from infra.local.services import LocalServices


async def run(arguments: argparse.Namespace) -> None:
    """Runs the services until SIGTERM or Ctrl-C. Raises: LocalServicesError."""
    # Both signals cancel, at any point of the start, and the blocks close in order. SIGINT has a handler too because a
    # shell starts background jobs with it ignored, and Python then leaves it ignored.
    this_task = asyncio.current_task()
    assert this_task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, this_task.cancel)
    async with LocalServices(
        data_dir=arguments.data_dir,
        kafka_port=arguments.kafka_port,
        dynamodb_port=arguments.dynamodb_port,
        log_dir=arguments.log_dir,
        postgres=arguments.postgres or arguments.postgres_port is not None,
        postgres_port=arguments.postgres_port,
    ) as services:
        print(f"KAFKA_BROKERS={services.kafka_brokers}")
        print(f"DYNAMODB_ENDPOINT={services.dynamodb_endpoint}", flush=True)
        if arguments.postgres or arguments.postgres_port is not None:
            print(f"CLOCKWORK_POSTGRES_URL={services.postgres_url}", flush=True)
        await services.until_one_dies()


def port_number(text: str) -> int:
    """A TCP port. Raises: argparse.ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r} should be 1 to 65535")
    return int(text)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.local",
        description="Run Kafka and DynamoDB Local, and PostgreSQL if asked for, until Ctrl-C.",
    )
    parser.add_argument("--kafka-port", type=port_number, metavar="PORT", help="default: a free one")
    parser.add_argument("--dynamodb-port", type=port_number, metavar="PORT", help="default: a free one")
    parser.add_argument("--postgres", action="store_true", help="run PostgreSQL, too")
    parser.add_argument("--postgres-port", type=port_number, metavar="PORT", help="the same, on this port")
    parser.add_argument(
        "--data-dir", type=Path, metavar="FOLDER", help="folder to keep the data in; default: keep none"
    )
    parser.add_argument("--log-dir", type=Path, metavar="FOLDER", help="default: beside the data")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
            asyncio.run(run(arguments))
    except LocalServicesError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
