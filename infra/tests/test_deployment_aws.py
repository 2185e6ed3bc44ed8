"""Rights, tables and topics in the files for AWS and Kafka are those that the code needs."""

import ast
import json
import re
from pathlib import Path
from typing import Any, Final

import hcl2
import pytest
import yaml
from botocore import xform_name
from botocore.session import Session

from clockwork.kafka.check import TRANSACTION_LOG
from clockwork.kafka.topics import REPLICAS, internal_topics, safe_config
from clockwork.settings.model import DynamoSettings, KafkaSettings
from clockwork.settings.sources import setting_names
from clockwork.stores.dynamodb import schema as dynamo_tables
from infra.kafka.acls import FILE, command, main, rights

ROOT: Final = Path(__file__).parents[2]
IAM: Final = ROOT / "infra" / "iam"
TERRAFORM: Final = ROOT / "infra" / "terraform"
POLICIES: Final = ("node", "init", "msk", "msk-init")
IN_TRANSACTIONS: Final = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}
IN_STATEMENTS: Final = {
    "INSERT": "PartiQLInsert",
    "UPDATE": "PartiQLUpdate",
    "DELETE": "PartiQLDelete",
    "SELECT": "PartiQLSelect",
}
WRAPPERS: Final = {
    "TransactWriteItems",
    "TransactGetItems",
    "ExecuteStatement",
    "BatchExecuteStatement",
    "ExecuteTransaction",
}
"""Operations that need no right of their own, only those of their contents."""


def actions(policy: str) -> set[str]:
    statements = json.loads((IAM / f"{policy}.json").read_text(encoding="utf-8"))["Statement"]
    listed = (s["Action"] if isinstance(s["Action"], list) else [s["Action"]] for s in statements)
    return {action for found in listed for action in found}


def words_in_adapters() -> set[str]:
    """Every text constant in the code that talks to DynamoDB."""
    return {
        node.value
        for path in (ROOT / "clockwork" / "stores" / "dynamodb").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def needed() -> set[str]:
    """The actions that IAM must allow: each operation by its name, a transaction or a PartiQL statement by its contents."""
    words = words_in_adapters()
    model = Session().get_service_model("dynamodb")
    called = {name for name in model.operation_names if xform_name(name) in words}
    if "TransactWriteItems" in called:
        called |= {action for word, action in IN_TRANSACTIONS.items() if word in words}
    if "BatchExecuteStatement" in called:
        verbs = {word.split(maxsplit=1)[0] for word in words if re.match(r"[A-Z]+ (INTO|FROM|\"|\S+ SET)", word)}
        called |= {IN_STATEMENTS[verb] for verb in verbs if verb in IN_STATEMENTS}
    return {f"dynamodb:{name}" for name in called - WRAPPERS}


def test_every_call_to_dynamodb_is_allowed_and_nothing_else() -> None:
    assert {"dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:CreateTable"} <= needed()
    assert actions("node") | actions("init") == needed()


def test_a_node_may_make_no_table_and_reads_as_a_whole_only_shards_incarnations_and_the_names_of_jobs() -> None:
    assert not actions("node") & {"dynamodb:CreateTable", "dynamodb:UpdateTimeToLive"}
    statements = json.loads((IAM / "node.json").read_text(encoding="utf-8"))["Statement"]
    scanned = [s["Resource"] for s in statements if "dynamodb:Scan" in s["Action"]]
    assert [r.partition("table/")[2] for r in scanned] == ["${executions_table}", "${jobs_table}/index/*"]


def test_every_right_is_listed_with_the_call_that_needs_it() -> None:
    rows = re.findall(r"^\| `([a-z-]+:\w+)` \| ([a-z, -]+) \| .{8,} \|$", (IAM / "README.md").read_text(), re.MULTILINE)
    listed = {(action, policy) for action, policies in rows for policy in policies.split(", ")}
    assert listed == {(action, policy) for policy in POLICIES for action in actions(policy)}


@pytest.mark.parametrize("policy", POLICIES)
def test_no_right_reaches_further_than_our_own_names(policy: str) -> None:
    for statement in json.loads((IAM / f"{policy}.json").read_text(encoding="utf-8"))["Statement"]:
        assert statement["Effect"] == "Allow"
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        assert all(resource.startswith(("arn:${partition}:dynamodb:", "${")) for resource in resources)
        assert all("*" not in resource.removesuffix("/index/*").removesuffix("/${cluster}-*") for resource in resources)
        assert not any("*" in action for action in statement["Action"])


# --- Terraform


def blocks(path: Path, kind: str, of: str) -> dict[str, Any]:
    """The blocks of one type by name, without quotes and the parser's own marks."""
    found: dict[str, Any] = {}
    for block in _plain(hcl2.loads(path.read_text(encoding="utf-8"))).get(kind, []):
        found |= block.get(of, {})
    return found


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {_plain(k): _plain(v) for k, v in value.items() if not k.startswith("__")}
        case list():
            return [_plain(v) for v in value]
        case str():
            return value.strip('"')
        case _:
            return value


class Recorder:
    """In the place of the client: records the calls that `init` makes."""

    def __init__(self, settings: DynamoSettings) -> None:
        self.settings = settings
        self.created: list[dict[str, Any]] = []
        self.expiry: dict[str, str] = {}

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        name = parameters["TableName"]
        match operation:
            case "create_table":
                self.created.append(parameters)
            case "describe_table":
                return {"Table": next(t for t in self.created if t["TableName"] == name) | {"TableStatus": "ACTIVE"}}
            case "update_time_to_live":
                self.expiry[name] = parameters["TimeToLiveSpecification"]["AttributeName"]
        return {}


async def test_terraform_makes_the_tables_that_init_makes() -> None:
    settings = DynamoSettings(
        region="x",
        schedules_table="${var.schedules_table}",
        executions_table="${var.executions_table}",
        keys_table="${var.keys_table}",
        jobs_table="${var.jobs_table}",
        search="on",
    )
    recorder = Recorder(settings)
    await dynamo_tables.create_tables(recorder)  # type: ignore[arg-type]
    tables = {
        table["name"]: table for table in blocks(TERRAFORM / "tables.tf", "resource", "aws_dynamodb_table").values()
    }
    assert tables.keys() == {made["TableName"] for made in recorder.created}
    for made in recorder.created:
        table = tables[made["TableName"]]
        keys = {part["KeyType"]: part["AttributeName"] for part in made["KeySchema"]}
        assert (table["hash_key"], table.get("range_key")) == (keys["HASH"], keys.get("RANGE"))
        attributes = {a["AttributeName"]: a["AttributeType"] for a in made["AttributeDefinitions"]}
        assert {a["name"]: a["type"] for a in table["attribute"]} == attributes
        assert indexes_of(table) == indexes_made(made)
        ttl = [part["attribute_name"] for part in table.get("ttl", []) if part["enabled"]]
        assert ttl == [name for name in (recorder.expiry.get(made["TableName"]),) if name]
        assert table["billing_mode"] == made["BillingMode"]
        assert table["point_in_time_recovery"][0]["enabled"]
        assert table["server_side_encryption"][0]["enabled"]


def indexes_of(table: dict[str, Any]) -> set[tuple[Any, ...]]:
    return {
        (i["name"], i["hash_key"], i.get("range_key"), i["projection_type"], frozenset(i.get("non_key_attributes", [])))
        for i in table.get("global_secondary_index", [])
    }


def indexes_made(made: dict[str, Any]) -> set[tuple[Any, ...]]:
    found = set()
    for index in made.get("GlobalSecondaryIndexes", []):
        keys = {part["KeyType"]: part["AttributeName"] for part in index["KeySchema"]}
        projection = index["Projection"]
        others = frozenset(projection.get("NonKeyAttributes", []))
        found.add((index["IndexName"], keys["HASH"], keys.get("RANGE"), projection["ProjectionType"], others))
    return found


def test_terraform_makes_the_topics_that_init_makes() -> None:
    settings = KafkaSettings(cluster="${var.cluster}", shards=64, consumer_group="g", commands=True)
    path = TERRAFORM / "topics" / "main.tf"
    topics = {topic["name"]: topic for topic in blocks(path, "resource", "kafka_topic").values()}
    plans = internal_topics(settings)
    assert topics.keys() == {plan.name for plan in plans}
    for plan in plans:
        topic = topics[plan.name]
        # Three replicas, unless told otherwise.
        assert topic["config"] == safe_config(plan, replicas=REPLICAS)
        assert topic["partitions"] in {"${var.shards}", plan.kafka_partitions}


@pytest.mark.parametrize("module", [".", "topics", "postgres"])
def test_terraform_s_variables_are_declared_and_used(module: str) -> None:
    paths = list((TERRAFORM / module).glob("*.tf"))
    parsed = [_plain(hcl2.loads(path.read_text(encoding="utf-8"))) for path in paths]
    declared = {name for file in parsed for block in file.get("variable", []) for name in block}
    text = "".join(path.read_text(encoding="utf-8") for path in paths)
    assert set(re.findall(r"\bvar\.(\w+)", text)) == declared


def test_terraform_s_database_takes_nothing_back_and_is_reached_with_tls_by_nodes_alone() -> None:
    path = TERRAFORM / "postgres" / "main.tf"
    (cluster,) = blocks(path, "resource", "aws_rds_cluster").values()
    (group,) = blocks(path, "resource", "aws_rds_cluster_parameter_group").values()
    (rule,) = blocks(path, "resource", "aws_vpc_security_group_ingress_rule").values()
    assert cluster["engine"] == "aurora-postgresql"
    assert cluster["storage_encrypted"] is True
    assert cluster["manage_master_user_password"] is True
    # None of the settings with which a start is refused.
    parameters = {each["name"]: each["value"] for each in group["parameter"]}
    assert parameters["rds.force_ssl"] == "1"
    assert not {"fsync", "synchronous_commit"} & parameters.keys()
    assert rule["referenced_security_group_id"] == "${var.node_security_group_id}"
    settings = set(re.findall(r"^    (CLOCKWORK_\w+) +=", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert settings <= {each.name for each in setting_names()}


def test_terraform_gives_the_policies_the_names_that_they_need() -> None:
    given = set(re.findall(r"\$\{(\w+)\}", "".join(path.read_text() for path in IAM.glob("*.json"))))
    iam = (TERRAFORM / "iam.tf").read_text(encoding="utf-8")
    assert given <= set(re.findall(r"^    (\w+) +=", iam, re.MULTILINE))


# --- Kafka's ACLs


def test_every_right_in_kafka_says_what_it_is_for_and_names_only_our_own() -> None:
    entries = [entry for who in yaml.safe_load(FILE.read_text(encoding="utf-8")).values() for entry in who]
    assert all(len(entry["for"]) > 20 for entry in entries)
    found = list(rights("node", cluster="c", group="g", topics=["orders", "mail-*"], dead_letter_topics=["shop-dead"]))
    settings = KafkaSettings(cluster="c", shards=1, consumer_group="g", commands=True)
    names = {right.name for right in found if right.resource == "topic"}
    assert names == {plan.name for plan in internal_topics(settings)} | {
        TRANSACTION_LOG,
        "orders",
        "mail-",
        "shop-dead",
    }
    # What a node may do to a dead letter does not depend on whose topic it lies in.
    operations = {name: {r.operation for r in found if r.name == name} for name in ("shop-dead", "c-dead-letters")}
    assert operations["shop-dead"] == operations["c-dead-letters"]
    assert {right.name for right in found if right.resource == "group"} == {"g", settings.commands_group}
    ids = [right for right in found if right.resource == "transactional-id"]
    assert all(settings.transactional_id("0123456789abcdef.1", 0).startswith(right.name) for right in ids)
    assert not [right for right in found if right.operation in {"All", "Alter", "Create", "Delete"}]


def test_the_rights_come_as_commands_for_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--principal", "User:a b", "--topic", "mail-*", "--dead-letter-topic", "shop-dead"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "kafka-acls.sh --add --allow-principal 'User:a b' --operation Read --topic shop-dead --resource-pattern-type literal"
        in lines
    )
    assert (
        "kafka-acls.sh --add --allow-principal 'User:a b' --operation Write --topic mail- --resource-pattern-type prefixed"
        in lines
    )
    only = next(iter(rights("init", cluster="c", group="g")))
    assert command(only, "User:x").endswith("--topic c- --resource-pattern-type prefixed")
