"""Checks of Kafka before a node starts: each finding is one line that says how to mend it."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.client import CoordinationType
from aiokafka.protocol.admin import ApiVersionRequest, DescribeConfigsRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest

from clockwork.kafka.check import TRANSACTION_LOG, check_by
from clockwork.ports.findings import Findings
from tests.unit.kafka_script import settings_for_script

EVERYTHING = {
    **{0: (0, 11), 3: (0, 12), 11: (0, 9), 12: (0, 4), 13: (0, 5), 15: (0, 5)},
    **{22: (0, 4), 24: (0, 4), 26: (0, 3)},
}
"""Versions that a present broker knows, by request."""
SHARDS = 4


class Brokers:
    """Three brokers, with all topics as they should be; each test changes one thing."""

    def __init__(self) -> None:
        self.versions = dict(EVERYTHING)
        self.topics = {"cw-shards": SHARDS, "cw-deliveries": 64, "cw-dead-letters": 8, TRANSACTION_LOG: 50}
        self.topics |= {"cw-events": 8, "cw-minutes": 1}
        self.forbidden: set[str] = set()
        self.hidden: set[str] = set()
        """Topics whose settings may not be looked at."""
        self.replicas = 3
        self.replicas_of: dict[str, int] = {}
        """Those of topics that have others."""
        self.configs = {
            "cleanup.policy": "compact",
            "min.insync.replicas": "2",
            "unclean.leader.election.enable": "false",
            "segment.bytes": "8388608",
        }
        self.configs_of: dict[str, dict[str, str]] = {}
        """Those that are others, by topic."""
        self.group_code = self.transactions_code = 0

    async def request(self, request: Any, *, node_id: int | None = None, coordinator: bool = False) -> Any:
        match request:
            case ApiVersionRequest():
                return SimpleNamespace(api_versions=[(key, *span) for key, span in self.versions.items()])
            case FindCoordinatorRequest():
                of_group = request._coordinator_type == CoordinationType.GROUP
                return SimpleNamespace(error_code=self.group_code if of_group else self.transactions_code)
            case MetadataRequest():
                return SimpleNamespace(topics=[self._topic(name) for name in request._topics])
            case DescribeConfigsRequest():
                return SimpleNamespace(
                    resources=[
                        (29, None, 2, name, []) if name in self.hidden else (0, None, 2, name, self._config(name))
                        for _, name, _ in request._resources
                    ]
                )
        raise AssertionError(request)

    def _topic(self, name: str) -> tuple[Any, ...]:
        if name in self.forbidden:
            return (29, name, False, [])
        if name not in self.topics:
            return (3, name, False, [])
        replicas = list(range(self.replicas_of.get(name, self.replicas)))
        return (0, name, False, [(0, n, 1, replicas, replicas, []) for n in range(self.topics[name])])

    def _config(self, name: str) -> list[tuple[str, str]]:
        return list((self.configs | self.configs_of.get(name, {})).items())

    async def find_coordinator(self, transactional_id: str) -> int | None:
        raise AssertionError(transactional_id)

    async def reset(self) -> None: ...
    async def close(self) -> None: ...


async def checked(brokers: Brokers, *, fires: bool = True, **changes: Any) -> Findings:
    return await check_by(brokers, settings_for_script(**changes), fires=fires)


async def only_problem(brokers: Brokers, **changes: Any) -> str:
    found = await checked(brokers, **changes)
    (problem,) = found.problems
    return problem


async def test_a_cluster_as_it_should_be_has_neither_problems_nor_warnings() -> None:
    assert await checked(Brokers(), instance_id="a") == Findings()


@pytest.mark.parametrize(
    ("key", "span", "named"),
    [
        (0, (0, 2), "Produce 3"),
        (3, (0, 3), "Metadata 4"),
        (11, (0, 4), "JoinGroup 5"),
        (12, (0, 2), "Heartbeat 3"),
        (13, (0, 2), "LeaveGroup 3"),
        (15, None, "DescribeGroups 0"),
        (22, None, "InitProducerId 0"),
        # A broker of the future, without the versions that this release speaks.
        (26, (90, 95), "EndTxn 0"),
    ],
)
async def test_brokers_that_do_not_speak_what_is_needed_are_refused_with_the_least_version(
    key: int, span: tuple[int, int] | None, named: str
) -> None:
    brokers = Brokers()
    brokers.versions.pop(key)
    if span is not None:
        brokers.versions[key] = span
    problem = await only_problem(brokers, instance_id="a")
    assert named in problem
    assert "Kafka 2.4" in problem


async def test_topics_that_only_people_look_at_are_warned_of_and_not_asked_for_where_they_are_not_wanted() -> None:
    brokers = Brokers()
    del brokers.topics["cw-events"]
    brokers.forbidden.add("cw-minutes")
    found = await checked(brokers)
    assert found.problems == ()
    assert ["cw-events" in found.warnings[0], "cw-minutes" in found.warnings[1]] == [True, True]
    assert await checked(brokers, activity=False) == Findings()


async def test_a_missing_topic_is_told_from_a_forbidden_one() -> None:
    brokers = Brokers()
    del brokers.topics["cw-shards"]
    brokers.forbidden.add("cw-deliveries")
    missing, forbidden = (await checked(brokers)).problems
    assert missing == "Kafka topic cw-shards is missing: run `python -m clockwork init`"
    assert "denies this user the topic cw-deliveries" in forbidden


async def test_the_ownership_topic_must_have_a_kafka_partition_for_each_shard_and_the_markers_may_have_any_number() -> (
    None
):
    brokers = Brokers()
    brokers.topics["cw-deliveries"] = 7
    assert await checked(brokers) == Findings()
    brokers.topics["cw-shards"] = SHARDS + 1
    problem = await only_problem(brokers)
    assert "cw-shards" in problem
    assert f"{SHARDS + 1} Kafka partitions, CLOCKWORK_SHARDS is {SHARDS}" in problem


async def test_only_the_markers_topic_must_be_compacted() -> None:
    brokers = Brokers()
    brokers.configs["cleanup.policy"] = "delete"
    problem = await only_problem(brokers)
    assert "cw-deliveries: cleanup.policy must be compact" in problem
    assert "--topic cw-deliveries --add-config cleanup.policy=compact" in problem


@pytest.mark.parametrize("topic", ["cw-shards", "cw-deliveries", "cw-dead-letters", "cw-commands"])
async def test_an_internal_topic_whose_leader_may_lack_acknowledged_records_is_refused(topic: str) -> None:
    brokers = Brokers()
    brokers.topics["cw-commands"] = 16
    brokers.configs_of["cw-commands"] = {"message.timestamp.type": "LogAppendTime"}
    brokers.configs_of.setdefault(topic, {})["unclean.leader.election.enable"] = "true"
    problem = await only_problem(brokers, commands=True)
    assert problem.startswith(f"Kafka topic {topic}: unclean.leader.election.enable must be false, is true: run `")
    assert f"--topic {topic} --add-config unclean.leader.election.enable=false`" in problem


async def test_large_segments_of_markers_are_warned_of() -> None:
    brokers = Brokers()
    brokers.configs["segment.bytes"] = "1073741824"
    found = await checked(brokers)
    assert found.problems == ()
    (warning,) = found.warnings
    assert "cw-deliveries: segment.bytes is 1073741824" in warning


@pytest.mark.parametrize(
    ("replicas", "in_sync_min", "problem", "warned"),
    [
        (3, 2, None, False),
        (3, 3, None, False),
        (5, 2, None, False),
        (3, 1, "min.insync.replicas=2", False),
        (3, 4, "min.insync.replicas=2", False),
        (2, 2, None, True),
        (2, 1, None, True),
        (1, 1, None, True),
        (1, 2, "min.insync.replicas=1", True),
    ],
)
@pytest.mark.parametrize("produce_version", [9, 10])
async def test_replicas_that_contradict_each_other_are_a_problem_and_few_of_them_a_warning(
    replicas: int, in_sync_min: int, problem: str | None, warned: bool, produce_version: int
) -> None:
    brokers = Brokers()
    brokers.versions[0] = (0, produce_version)
    brokers.replicas = replicas
    brokers.replicas_of[TRANSACTION_LOG] = 3
    brokers.configs_of[TRANSACTION_LOG] = {"min.insync.replicas": "2"}
    brokers.configs["min.insync.replicas"] = str(in_sync_min)
    if produce_version == 10 and in_sync_min > replicas:
        # Since Kafka 3.7 a broker is content with all replicas.
        problem = None
    found = await checked(brokers)
    named = (
        [] if problem is None else ["Kafka topic cw-shards", "Kafka topic cw-deliveries", "Kafka topic cw-dead-letters"]
    )
    assert [line.split(":")[0] for line in found.problems] == named
    assert all(problem in line for line in found.problems if problem is not None)
    # One line for all of them, however many there are.
    assert len(found.warnings) == warned


@pytest.mark.parametrize(
    ("replicas", "changes", "warned"),
    [
        (3, {}, None),
        (2, {}, "(2)"),
        (1, {"min.insync.replicas": "1"}, "(1)"),
        (3, {"min.insync.replicas": "1"}, "min.insync.replicas is 1 of 3"),
        (3, {"unclean.leader.election.enable": "true"}, "unclean.leader.election.enable is not false"),
    ],
)
async def test_a_log_of_transactions_that_may_lose_commits_is_warned_of_where_the_node_delivers(
    replicas: int, changes: dict[str, str], warned: str | None
) -> None:
    brokers = Brokers()
    brokers.replicas_of[TRANSACTION_LOG] = replicas
    brokers.configs_of[TRANSACTION_LOG] = changes
    found = await checked(brokers)
    assert found.problems == ()
    assert len(found.warnings) == (warned is not None)
    assert all(TRANSACTION_LOG in line and str(warned) in line for line in found.warnings)
    assert await checked(brokers, fires=False) == Findings()


async def test_a_log_of_transactions_that_does_not_exist_yet_is_no_finding_and_one_that_is_hidden_is_named() -> None:
    brokers = Brokers()
    del brokers.topics[TRANSACTION_LOG]
    assert await checked(brokers) == Findings()
    brokers.forbidden.add(TRANSACTION_LOG)
    (warning,) = (await checked(brokers)).warnings
    assert f"{TRANSACTION_LOG} may not be looked at" in warning


async def test_a_clients_topic_of_dead_letters_is_only_warned_of_since_the_cluster_s_gets_what_it_does_not_take() -> (
    None
):
    brokers = Brokers()
    brokers.topics["shop-dead"] = 1
    own = ("bank-dead", "gone-dead", "shop-dead")
    brokers.forbidden.add("bank-dead")
    found = await checked(brokers, client_dead_letter_topics=own)
    assert found.problems == ()
    forbidden, missing = found.warnings
    assert "denies this user the topic bank-dead" in forbidden
    assert "gone-dead is missing" in missing
    assert all("CLOCKWORK_DEAD_LETTER_TOPICS" in line and "go to cw-dead-letters" in line for line in found.warnings)
    # As it is set up, the loss of one broker may cost acknowledged records.
    brokers.configs["min.insync.replicas"] = "1"
    found = await checked(brokers, fires=False, client_dead_letter_topics=("shop-dead",))
    assert [line.split(":")[0] for line in found.warnings] == ["Kafka topic shop-dead"]


async def test_settings_that_may_not_be_looked_at_are_no_proof_that_they_are_wrong() -> None:
    brokers = Brokers()
    brokers.hidden = {"cw-shards", "cw-deliveries", "cw-dead-letters", TRANSACTION_LOG}
    found = await checked(brokers)
    assert found.problems == ()
    assert len([line for line in found.warnings if "DescribeConfigs" in line]) == 4


async def test_rights_to_the_group_and_to_transactions_are_asked_for_where_the_node_delivers() -> None:
    brokers = Brokers()
    brokers.group_code, brokers.transactions_code = 30, 53
    group, transactions = (await checked(brokers)).problems
    assert "the group cw" in group
    assert "the transactional ids cw-*" in transactions
    assert (await checked(brokers, fires=False)).problems == ()


async def test_a_coordinator_that_is_away_for_a_moment_is_no_missing_right() -> None:
    brokers = Brokers()
    brokers.group_code = brokers.transactions_code = 15
    assert await checked(brokers) == Findings()
