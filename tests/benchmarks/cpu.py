"""CPU time of the processes that a benchmark started, as the kernel counts it."""

from typing import Final

import psutil

KAFKA_MAIN: Final = "kafka.Kafka"
DYNAMODB_MAIN: Final = "software.amazon.dynamodb.services.local.main.ServerRunner"


def cpu_of_service_s(main_class: str) -> float:
    """CPU seconds so far of the Java servers below this process that run this class (`kafka.Kafka`, …), their children's
    too. Raises: ProcessLookupError, if there is none."""
    found = [each for each in psutil.Process().children(recursive=True) if _runs(each, main_class)]
    if not found:
        raise ProcessLookupError(f"no {main_class} below this process")
    return sum(times.user + times.system for each in found for times in [each.cpu_times()])


def _runs(process: psutil.Process, main_class: str) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:  # it has just ended
        return False
    # The keeper of a service has the whole command in its own command line.
    return main_class in command and command[0].endswith("java")
