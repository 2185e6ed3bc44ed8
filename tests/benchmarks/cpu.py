"""CPU time of the processes that a benchmark started, as the kernel counts it."""

from collections.abc import Mapping
from typing import Final

import psutil

from infra.local.node import Store

KAFKA_MAIN: Final = "kafka.Kafka"
DYNAMODB_MAIN: Final = "software.amazon.dynamodb.services.local.main.ServerRunner"
POSTGRES: Final = "postgres"
"""Name of its processes."""
STORE_MAINS: Final[Mapping[Store, str]] = {"dynamodb": DYNAMODB_MAIN, "postgresql": POSTGRES}


def cpu_of_service_s(main_class: str) -> float:
    """CPU seconds so far of the servers below this process: the Java ones that run this class (`kafka.Kafka`, …), or all
    processes of PostgreSQL (`POSTGRES`), ended sessions too. Raises: ProcessLookupError, if there is none."""
    found = [each for each in psutil.Process().children(recursive=True) if _runs(each, main_class)]
    if not found:
        raise ProcessLookupError(f"no {main_class} below this process")
    # A session that has ended is counted with its parent's children.
    ended = main_class == POSTGRES
    return sum(
        times.user + times.system + (times.children_user + times.children_system if ended else 0.0)
        for each in found
        for times in [each.cpu_times()]
    )


def _runs(process: psutil.Process, main_class: str) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:  # it has just ended
        return False
    if main_class == POSTGRES:
        # Its processes change their command lines, and keep their program's name.
        return process.name() == POSTGRES
    # The keeper of a service has the whole command in its own command line.
    return main_class in command and command[0].endswith("java")
