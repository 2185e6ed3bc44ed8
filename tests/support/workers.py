"""The distribution of tests over worker processes: real services in one lane, pure tests in the other.

`make test` runs pytest with xdist. Tests that use the real services mostly wait, and pure tests mostly compute, so one
worker of each kind keeps two cores busy. A lane whose own kind is finished goes on with the other's, and only then
starts services of its own: no two workers share a broker or a store, so a test may stop its own.
"""

from typing import Final

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

REAL_FILES: Final = (
    "tests/contract/",
    "tests/fuzz/test_fuzz_real",
    "tests/real/",
    "infra/tests/test_local_",
    "tests/chaos/",
    "tests/real/test_broker_faults",
    "tests/contract/test_kafka_outage",
)
"""Files of tests that use the real services, in the order in which one process runs them: the longest last, and then, so
that the lane of real services begins with them, those that start Kafka again. It opens every topic made so far."""
REAL_LANE: Final = "gw0"
"""The first worker, by the name that xdist gives it."""


def rank(nodeid: str) -> int:
    """Its place in the order of collection: 0 for pure tests, then by `REAL_FILES`, whose last name counts."""
    return max((n for n, start in enumerate(REAL_FILES, 1) if nodeid.startswith(start)), default=0)


class TwoEndedScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """A queue in the order of collection. The lane of real services takes from its end, all other workers from its front.

    A file of tests with real services is one unit, because its tests share fixtures; a pure test is a unit by itself.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0] if rank(nodeid) else nodeid

    def _assign_work_unit(self, node: WorkerController) -> None:
        if node.gateway.id == REAL_LANE:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)
