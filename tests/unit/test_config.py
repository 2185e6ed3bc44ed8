"""Settings: where they come from, what stops the start, and that nothing secret is ever shown."""

import codecs
import dataclasses
import json
import tomllib
from pathlib import Path

import pytest

from clockwork.errors import CannotStart
from clockwork.settings.model import (
    AccessSettings,
    ConnectionSettings,
    HttpSettings,
    IntakeSettings,
    RunnerSettings,
    Settings,
)
from clockwork.settings.sources import load_settings, setting_names

CONFIG = Path(__file__).parents[2] / "config"


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(CannotStart) as caught:
        load_settings(environ)
    return str(caught.value)


def a_file(folder: Path, text: str) -> dict[str, str]:
    path = folder / "clockwork.toml"
    path.write_text(text, encoding="utf-8")
    return {"CLOCKWORK_CONFIG": str(path)}


def test_nothing_given_means_the_documented_defaults() -> None:
    loaded = load_settings({})
    assert loaded == dataclasses.replace(
        Settings(),
        dynamo=dataclasses.replace(Settings().dynamo, create_resources=False),
        kafka=dataclasses.replace(Settings().kafka, create_resources=False),
    )
    assert loaded.http.port == 8080
    assert loaded.kafka.shards == loaded.intake.shards == 64
    assert loaded.kafka.consumer_group == "clockwork"
    assert loaded.runner.topic_wait_ms == 900_000
    assert loaded.intake.retention_ms == 7 * 24 * 3_600_000


def test_every_value_of_the_environment_reaches_its_setting() -> None:
    loaded = load_settings(
        {
            "KAFKA_BROKERS": "a.example:9092, [::1]:9093",
            "KAFKA_CONSUMER_GROUP": "g",
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY": "AK",
            "AWS_SECRET_KEY": "SK",
            "SCHEDULE_DB": "s-1",
            "PARTITION_EXEC_DB": "s-2",
            "SCHEDULE_KEY_DB": "s-3",
            "JOB_DB": "s-4",
            "DYNAMODB_ENDPOINT": "http://127.0.0.1:8000",
            "CLOCKWORK_HTTP_HOST": "::",
            "CLOCKWORK_HTTP_PORT": "0",
            "CLOCKWORK_BODY_BYTES_MAX": "2048",
            "CLOCKWORK_DRAIN_TIMEOUT_MS": "0",
            "CLOCKWORK_HTTP_HOSTS": "node-1, clockwork.example",
            "CLOCKWORK_UI_URL": "https://jobs.example/clockwork/",
            "CLOCKWORK_SHARDS": "8",
            "CLOCKWORK_CLUSTER": "c",
            "CLOCKWORK_SESSION_TIMEOUT_MS": "6000",
            "CLOCKWORK_HEARTBEAT_INTERVAL_MS": "2000",
            "CLOCKWORK_INSTANCE_ID": "node-1",
            "CLOCKWORK_REQUEST_TIMEOUT_MS": "100",
            "CLOCKWORK_SCAN_INTERVAL_MS": "1000",
            "CLOCKWORK_RETENTION_MS": "1000",
            "CLOCKWORK_FRONTIER_LEAD_MS": "5000",
            "CLOCKWORK_BATCH_RECORDS_MAX": "2000",
            "CLOCKWORK_BATCH_BYTES_MAX": "65536",
            "CLOCKWORK_RETRY_ATTEMPTS": "1",
            "CLOCKWORK_RETRY_INITIAL_MS": "5",
            "CLOCKWORK_RETRY_MAX_MS": "5",
            "CLOCKWORK_TOPIC_WAIT_MS": "0",
            "CLOCKWORK_LOG_FORMAT": "JSON",
            "CLOCKWORK_LOG_LEVEL": "Debug",
        }
    )
    assert loaded.http == HttpSettings(
        host="::",
        port=0,
        body_bytes_max=2048,
        drain_timeout_ms=0,
        hosts=("node-1", "clockwork.example"),
        ui_url="https://jobs.example/clockwork/",
        cluster="c",
    )
    assert loaded.intake == IntakeSettings(
        cluster="c", shards=8, request_timeout_ms=100, scan_interval_ms=1000, retention_ms=1000
    )
    assert loaded.runner == RunnerSettings(
        scan_interval_ms=1000,
        frontier_lead_ms=5000,
        batch_records_max=2000,
        batch_bytes_max=65536,
        retry_attempts=1,
        retry_initial_ms=5,
        retry_max_ms=5,
        topic_wait_ms=0,
        retention_ms=1000,
        dead_letter_topic="c-dead-letters",
    )
    kafka, dynamo = loaded.kafka, loaded.dynamo
    assert kafka.brokers == ("a.example:9092", "[::1]:9093")
    assert (kafka.shards_topic, kafka.deliveries_topic) == ("c-shards", "c-deliveries")
    assert (kafka.instance_id, kafka.session_timeout_ms, kafka.heartbeat_interval_ms) == ("node-1", 6000, 2000)
    tables = (dynamo.schedules_table, dynamo.executions_table, dynamo.keys_table, dynamo.jobs_table)
    assert tables == ("s-1", "s-2", "s-3", "s-4")
    assert dynamo.secret_key is not None
    assert (dynamo.access_key, dynamo.secret_key.get_secret_value()) == ("AK", "SK")
    assert (loaded.log.format, loaded.log.level) == ("json", "debug")


def test_every_value_of_access_and_limits_reaches_its_setting() -> None:
    loaded = load_settings(
        {
            "CLOCKWORK_AUTH": "Keys",
            "CLOCKWORK_AUTH_KEYS_FILE": "keys.toml",
            "CLOCKWORK_CREATES_PER_SECOND": "100",
            "CLOCKWORK_CREATE_BYTES_PER_SECOND": "1000",
            "CLOCKWORK_CLIENT_PENDING_MAX": "5000",
            "CLOCKWORK_HTTP_CONNECTIONS_MAX": "7",
            "CLOCKWORK_HTTP_HEAD_TIMEOUT_MS": "10",
            "CLOCKWORK_HTTP_SEND_TIMEOUT_MS": "20",
            "CLOCKWORK_TOPIC_DELIVERIES_PER_SECOND": "50",
            "CLOCKWORK_TOPIC_RATES": "a=5, b.c=0",
            "CLOCKWORK_DEAD_LETTER_TOPICS": "shop=shop-dead, bank=bank.dead",
        }
    )
    # Where callers need keys, no web page can use the node by another name.
    assert (loaded.http.checks_host, load_settings({}).http.checks_host) == (False, True)
    assert loaded.access == AccessSettings(
        auth="keys",
        keys_file="keys.toml",
        creates_per_second=100,
        create_bytes_per_second=1000,
        client_pending_max=5000,
    )
    assert loaded.connections == ConnectionSettings(connections_max=7, head_timeout_ms=10, send_timeout_ms=20)
    assert (loaded.pace.deliveries_per_second, loaded.pace.per_second()) == (50, {"a": 5, "b.c": 0})
    assert loaded.runner.dead_letter_topics == {"shop": "shop-dead", "bank": "bank.dead"}


@pytest.mark.parametrize(
    ("environ", "create"),
    [
        ({}, False),
        ({"DYNAMODB_ENDPOINT": "http://h:1"}, True),
        ({"DYNAMODB_ENDPOINT": "http://h:1", "CLOCKWORK_CREATE_RESOURCES": "false"}, False),
        ({"CLOCKWORK_CREATE_RESOURCES": "TRUE"}, True),
        ({"CLOCKWORK_CREATE_RESOURCES": ""}, False),
    ],
)
def test_resources_are_made_where_dynamodb_is_not_awss_unless_told_otherwise(
    environ: dict[str, str], create: bool
) -> None:
    loaded = load_settings(environ)
    assert loaded.dynamo.create_resources is create
    assert loaded.kafka.create_resources is create


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    environ = a_file(tmp_path, 'clockwork_shards = 16\nClockwork_Cluster = "f"\nKAFKA_BROKERS = ["a:1", "b:2"]\n')
    loaded = load_settings(environ | {"CLOCKWORK_CLUSTER": "e", "CLOCKWORK_SHARDS": ""})
    assert loaded.kafka.shards == 16
    assert loaded.kafka.cluster == "e"
    assert loaded.kafka.brokers == ("a:1", "b:2")
    assert loaded.http.port == 8080


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("CLOCKWORK_SHARDS", v) for v in ("0", "10001", "-1", "x", "1.5", "true")),
        *(("CLOCKWORK_CLUSTER", v) for v in ("a b", "a/b", "ä", "x" * 201)),
        *(("CLOCKWORK_HTTP_PORT", v) for v in ("-1", "65536", "http")),
        *(
            ("CLOCKWORK_HTTP_HOSTS", v)
            for v in ("a:80", "http://a", "a/b", "*", "*.a", "a b", "ä.example", "[::1]", "::1")
        ),
        *(("CLOCKWORK_UI_URL", v) for v in ("a", "a.example:80", "ftp://a", "https://", "https://ä", "https:///x")),
        *(("CLOCKWORK_UI_URL", f"https://a{rest}") for rest in (":x", ":99999", ":0", "?x", "#x", " b", "\\b")),
        *(("CLOCKWORK_UI_URL", v) for v in ("https://u@a", "https://[::1", "https://a[b]", "https://a\nb")),
        *(("CLOCKWORK_FRONTIER_LEAD_MS", v) for v in ("0", "5001")),
        *(("CLOCKWORK_BATCH_RECORDS_MAX", v) for v in ("0", "2001")),
        *(("CLOCKWORK_CREATE_RESOURCES", v) for v in ("maybe", "2")),
        *(
            ("KAFKA_BROKERS", v)
            for v in ("host", "host:", "host:x", "a:1,,b:2", "a:1,b", "a:99999", "kafka://a:1", "a b:1")
        ),
        *(("DYNAMODB_ENDPOINT", v) for v in ("localhost:8000", "ftp://h", "http://", "http://user:pw@h:1")),
        *(
            ("DYNAMODB_ENDPOINT", v)
            for v in ("http://a b:1", "http://h_1:1", "http://h:x", "http://h:65536", "http://h:0")
        ),
        *(("AWS_REGION", v) for v in ("eu central 1", "-x", "x-", "1", "x" * 64, "eu_central")),
        *(("SCHEDULE_DB", v) for v in ("ab", "a b c", "x" * 256)),
        ("CLOCKWORK_RETRY_ATTEMPTS", "0"),
        ("CLOCKWORK_INSTANCE_ID", "a b"),
        ("CLOCKWORK_LOG_FORMAT", "xml"),
        ("CLOCKWORK_LOG_LEVEL", "loud"),
        ("CLOCKWORK_REQUEST_TIMEOUT_MS", "99"),
    ],
)
def test_a_wrong_value_stops_the_start_and_names_the_setting(name: str, value: str) -> None:
    assert f"{name}: " in refusal({name: value})


def test_every_problem_is_named_in_one_line(tmp_path: Path) -> None:
    environ = a_file(tmp_path, 'CLOCKWORK_SHARDS = 0\nCOLOUR = "red"\nKAFKA_BROKERS = {a = 1}\n')
    line = refusal(environ | {"CLOCKWORK_HTTP_PORT": "x", "CLOCKWORK_SHARD": "4", "SCHEDULE_DB": "!"})
    for name in (
        "CLOCKWORK_SHARDS",
        "COLOUR",
        "KAFKA_BROKERS",
        "CLOCKWORK_HTTP_PORT",
        "CLOCKWORK_SHARD",
        "SCHEDULE_DB",
    ):
        assert f"{name}: " in line
    assert "did you mean CLOCKWORK_SHARDS?" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "name", ["CLOCKWORK_", "CLOCKWORK_X", "CLOCKWORK_HTTP_PORTS", "clockwork_shards", "CLOCKWORK_SERVICES"]
)
def test_an_unknown_clockwork_name_stops_the_start(name: str) -> None:
    assert f"{name}: unknown name" in refusal({name: "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLOCKWORK_WORKER_SERVICE_HOST", "10.0.0.1"),
        ("CLOCKWORK_WORKER_SERVICE_PORT", "80"),
        ("CLOCKWORK_WORKER_SERVICE_PORT_HTTP", "80"),
        ("CLOCKWORK_WORKER_PORT", "tcp://10.0.0.1:80"),
        ("CLOCKWORK_WORKER_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("CLOCKWORK_WORKER_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("CLOCKWORK_WORKER_PORT_80_TCP_PORT", "80"),
        ("CLOCKWORK_WORKER_PORT_80_TCP_PROTO", "tcp"),
        ("CLOCKWORK_A_1_PORT_53_UDP", "udp://10.0.0.1:53"),
        # A Service named `clockwork-http` gives a setting's own name.
        ("CLOCKWORK_HTTP_PORT", "tcp://10.0.0.1:80"),
    ],
)
def test_a_service_link_of_any_service_is_ignored(name: str, value: str) -> None:
    assert load_settings({name: value}) == load_settings({})


@pytest.mark.parametrize("name", ["CLOCKWORK_HTTPS_PORT", "CLOCKWORK_WORKER_PORT", "CLOCKWORK_SERVICE"])
def test_a_misspelt_name_that_looks_like_a_service_link_stops_the_start(name: str) -> None:
    with pytest.raises(CannotStart, match=name):
        load_settings({name: "8080"})


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", " ", "\t"])
def test_blank_ends_of_every_value_are_cut_in_the_environment_and_in_the_file(end: str, tmp_path: Path) -> None:
    # As a file with Windows line ends gives them, or `echo` into a Secret.
    given = {
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY": "AKIA1",
        "AWS_SECRET_KEY": "s3cret",
        "KAFKA_CONSUMER_GROUP": "ours",
        "CLOCKWORK_HTTP_HOST": "::1",
        "CLOCKWORK_HTTP_PORT": "8081",
        "CLOCKWORK_AUTH": "keys",
        "CLOCKWORK_AUTH_KEYS_FILE": "keys.toml",
        "CLOCKWORK_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "CLOCKWORK_KAFKA_SASL_MECHANISM": "PLAIN",
        "CLOCKWORK_KAFKA_SASL_USERNAME": "us",
        "CLOCKWORK_KAFKA_SASL_PASSWORD": "pa ss",
    }
    blank = {name: f" {value}{end}" for name, value in given.items()}
    file = tmp_path / "settings.toml"
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in blank.items()))
    assert load_settings(blank) == load_settings(given)
    assert load_settings({"CLOCKWORK_CONFIG": f"{file}{end}"}) == load_settings(given)


def test_a_control_character_inside_a_value_is_refused_without_showing_the_value() -> None:
    with pytest.raises(CannotStart) as refused:
        load_settings({"AWS_ACCESS_KEY": "AKIA1", "AWS_SECRET_KEY": "abc\x00def"})
    assert "AWS_SECRET_KEY: holds a control character" in str(refused.value)
    assert "abc" not in str(refused.value)


def test_a_byte_order_mark_before_the_file_is_read_as_if_it_were_not_there(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(codecs.BOM_UTF8 + b"CLOCKWORK_SHARDS = 8\r\n")
    assert load_settings({"CLOCKWORK_CONFIG": str(file)}).intake.shards == 8


@pytest.mark.parametrize(
    ("word", "meant"), [("false", "off"), ("No", "off"), ("OFF", "off"), ("true", "on"), ("yes", "on")]
)
def test_a_switch_takes_the_words_that_yaml_makes_of_it(word: str, meant: str) -> None:
    assert load_settings({"CLOCKWORK_SEARCH": word}).dynamo.search == meant
    assert load_settings({"CLOCKWORK_COMMANDS": word}).access.commands == meant
    assert load_settings({"CLOCKWORK_JOBS": word}).runner.jobs == meant


def test_tracing_that_yaml_makes_false_is_off() -> None:
    assert load_settings({"CLOCKWORK_TRACING": "false"}).log.tracing == "off"


def test_names_of_service_links_of_tests_and_of_others_are_left_alone() -> None:
    names = ["CLOCKWORK_SERVICE_HOST", "CLOCKWORK_SERVICE_PORT", "CLOCKWORK_SERVICE_PORT_HTTP", "CLOCKWORK_PORT"]
    names += ["CLOCKWORK_PORT_8080_TCP", "CLOCKWORK_PORT_8080_TCP_ADDR", "CLOCKWORK_LOCAL_X", "PATH", "AWS_PROFILE"]
    load_settings(dict.fromkeys(names, "tcp://10.0.0.1:80"))


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"CLOCKWORK_HEARTBEAT_INTERVAL_MS": "3334"}, "CLOCKWORK_HEARTBEAT_INTERVAL_MS"),
        ({"CLOCKWORK_SESSION_TIMEOUT_MS": "1499"}, "CLOCKWORK_HEARTBEAT_INTERVAL_MS"),
        ({"CLOCKWORK_RETRY_INITIAL_MS": "60001"}, "CLOCKWORK_RETRY_INITIAL_MS"),
        ({"AWS_ACCESS_KEY": "k"}, "AWS_SECRET_KEY"),
        ({"AWS_SECRET_KEY": "k"}, "AWS_ACCESS_KEY"),
        ({"SCHEDULE_DB": "scheduleKeys"}, "SCHEDULE_KEY_DB"),
        ({"SCHEDULE_DB": "jobs"}, "JOB_DB"),
        ({"CLOCKWORK_AUTH": "keys"}, "CLOCKWORK_AUTH_KEYS_FILE"),
        ({"CLOCKWORK_AUTH_KEYS_FILE": "f"}, "CLOCKWORK_AUTH_KEYS_FILE"),
        ({"CLOCKWORK_AUTH": "oidc", "CLOCKWORK_OIDC_AUDIENCE": "a"}, "CLOCKWORK_OIDC_ISSUER"),
        ({"CLOCKWORK_AUTH": "oidc", "CLOCKWORK_OIDC_ISSUER": "https://i.example"}, "CLOCKWORK_OIDC_AUDIENCE"),
        ({"CLOCKWORK_OIDC_ISSUER": "https://i.example"}, "CLOCKWORK_OIDC_ISSUER"),
        ({"CLOCKWORK_CLIENT_PENDING_MAX": "1", "CLOCKWORK_SEARCH": "off"}, "set CLOCKWORK_SEARCH=on"),
        ({"CLOCKWORK_DEAD_LETTER_TOPICS": "a=x,a=y"}, "CLOCKWORK_DEAD_LETTER_TOPICS: names client a twice"),
        ({"CLOCKWORK_DEAD_LETTER_TOPICS": "a=__x"}, "CLOCKWORK_DEAD_LETTER_TOPICS: __x is Kafka's own"),
        (
            {"CLOCKWORK_DEAD_LETTER_TOPICS": "a=c-dead-letters", "CLOCKWORK_CLUSTER": "c"},
            "CLOCKWORK_DEAD_LETTER_TOPICS: c-dead-letters is Clockwork's own",
        ),
    ],
)
def test_values_that_contradict_each_other_stop_the_start(environ: dict[str, str], named: str) -> None:
    assert named in refusal(environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLOCKWORK_AUTH", "anyone"),
        ("CLOCKWORK_OIDC_ISSUER", "http://issuer.example"),
        ("CLOCKWORK_OIDC_JWKS_URL", "ftp://issuer.example"),
        ("CLOCKWORK_CREATES_PER_SECOND", "-1"),
        ("CLOCKWORK_CLIENT_PENDING_MAX", "-1"),
        ("CLOCKWORK_HTTP_CONNECTIONS_MAX", "0"),
        ("CLOCKWORK_TOPIC_RATES", "orders"),
        ("CLOCKWORK_TOPIC_RATES", "orders=-1"),
        ("CLOCKWORK_TOPIC_RATES", "=5"),
        ("CLOCKWORK_DEAD_LETTER_TOPICS", "shop"),
        ("CLOCKWORK_DEAD_LETTER_TOPICS", "shop="),
        ("CLOCKWORK_DEAD_LETTER_TOPICS", "=dead"),
        ("CLOCKWORK_DEAD_LETTER_TOPICS", "shop=a b"),
        ("CLOCKWORK_DEAD_LETTER_TOPICS", "sh op=a"),
        ("CLOCKWORK_DEAD_LETTER_TOPICS", "shop=.."),
    ],
)
def test_a_wrong_value_of_access_and_limits_stops_the_start(name: str, value: str) -> None:
    assert f"{name}: " in refusal({name: value})


@pytest.mark.parametrize("text", ["CLOCKWORK_SHARDS = ", "\xff", "A = 1\nA = 2"])
def test_a_file_that_is_no_toml_stops_the_start(tmp_path: Path, text: str) -> None:
    assert refusal(a_file(tmp_path, text)).startswith("settings: CLOCKWORK_CONFIG: ")


def test_a_file_that_is_missing_or_says_a_thing_twice_stops_the_start(tmp_path: Path) -> None:
    assert "CLOCKWORK_CONFIG: " in refusal({"CLOCKWORK_CONFIG": str(tmp_path / "none.toml")})
    assert "CLOCKWORK_SHARDS: twice" in refusal(a_file(tmp_path, "CLOCKWORK_SHARDS = 1\nclockwork_shards = 2\n"))
    assert "CLOCKWORK_CONFIG: unknown" in refusal(a_file(tmp_path, 'CLOCKWORK_CONFIG = "x"\n'))


def test_the_secret_is_neither_in_the_settings_text_nor_in_a_refusal() -> None:
    environ = {"AWS_ACCESS_KEY": "AK", "AWS_SECRET_KEY": "hush-hush"}
    assert "hush" not in repr(load_settings(environ))
    assert "hush" not in refusal(environ | {"CLOCKWORK_SHARDS": "x", "SCHEDULE_DB": "?"})


def test_each_name_has_a_reason_and_the_same_default_wherever_it_is_used() -> None:
    names = [s.name for s in setting_names()]
    assert len(names) == len(set(names))
    assert all(s.reason for s in setting_names())
    # One value, several readers: their defaults must not drift apart.
    http, kafka, intake, runner = HttpSettings(), Settings().kafka, IntakeSettings(), RunnerSettings()
    assert http.cluster == kafka.cluster == intake.cluster
    assert kafka.shards == intake.shards
    assert intake.scan_interval_ms == runner.scan_interval_ms
    assert intake.retention_ms == runner.retention_ms
    assert runner.dead_letter_topic == kafka.dead_letters_topic


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_settings({}).http.port = 1  # type: ignore[misc]


def test_the_default_file_says_what_the_defaults_are_and_leaves_out_no_name() -> None:
    path = CONFIG / "default.toml"
    assert load_settings({"CLOCKWORK_CONFIG": str(path)}) == load_settings({})
    text = path.read_text(encoding="utf-8")
    without_value = {line[1:].split(" ")[0] for line in text.splitlines() if line[:1] == "#" and line[1:2].isalpha()}
    assert without_value | tomllib.loads(text).keys() == {s.name for s in setting_names()}


def test_the_local_file_can_be_loaded() -> None:
    assert load_settings({"CLOCKWORK_CONFIG": str(CONFIG / "local.toml")}).kafka.create_resources is True


def test_a_store_in_memory_is_kept_by_one_process() -> None:
    assert load_settings({}).store.kind == "dynamodb"
    loaded = load_settings({"CLOCKWORK_STORE": "memory"})
    assert loaded.store.in_process
    assert loaded.kafka.create_resources, "nothing is there to be spared"
    assert "CLOCKWORK_PROCESSES: must be 1" in refusal({"CLOCKWORK_STORE": "memory", "CLOCKWORK_PROCESSES": "2"})
    assert "CLOCKWORK_STORE: " in refusal({"CLOCKWORK_STORE": "mongodb"})


POSTGRESQL = {
    "CLOCKWORK_STORE": "postgresql",
    "CLOCKWORK_POSTGRES_URL": "postgresql://node:hush-hush@db.example/schedules",
}


def test_the_database_is_named_by_a_url_and_what_goes_before_it() -> None:
    environ = POSTGRESQL | {"CLOCKWORK_POSTGRES_USER": "other", "CLOCKWORK_POSTGRES_PASSWORD": "hush"}
    loaded = load_settings(environ | {"CLOCKWORK_POSTGRES_SCHEMA": "blue", "CLOCKWORK_POSTGRES_POOL": "20"})

    postgres = loaded.postgres
    assert loaded.store.kind == "postgresql"
    assert postgres.url is not None
    assert postgres.url.get_secret_value() == POSTGRESQL["CLOCKWORK_POSTGRES_URL"]
    assert (postgres.user, postgres.schema, postgres.pool) == ("other", "blue", 20)
    assert "hush" not in repr(loaded)
    # libpq's variables, or its defaults, name the database.
    assert load_settings({"CLOCKWORK_STORE": "postgresql"}).postgres.url is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db.example",
        "postgres://node@db.example:5433/schedules",
        "postgresql://node:p%40ss@a.example:5432,b.example/schedules?target_session_attrs=read-write",
        "postgresql://node@[::1]:5432/schedules",
        "postgresql:///schedules",
        "postgresql://%2Frun%2Fpostgresql/schedules",
    ],
)
def test_a_url_of_a_database_is_taken_as_libpq_has_it(url: str) -> None:
    assert load_settings(POSTGRESQL | {"CLOCKWORK_POSTGRES_URL": url}).postgres.url is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://node:hush-hush@db.example",
        "postgresql:node:hush-hush@db.example",
        "postgresql://node:hush-hush@db.example:65536/x",
        "postgresql://node:hush-hush@db example/x",
        "postgresql://node:hush-hush@/a,?b/x#y",
        "postgresql://node:hush/hush@db.example/x",
        "postgresql://node:pass@hush:hush@db.example/x",
        "postgresql://node@db.example/x?password=pass&hush",
    ],
)
def test_a_url_that_names_no_database_stops_the_start_and_is_not_shown(url: str) -> None:
    line = refusal(POSTGRESQL | {"CLOCKWORK_POSTGRES_URL": url})

    assert "CLOCKWORK_POSTGRES_URL: Value error, should be postgresql://user@host:port/database" in line
    assert "hush" not in line


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"CLOCKWORK_STORE": "dynamodb"}, "CLOCKWORK_POSTGRES_URL: has no effect with CLOCKWORK_STORE=dynamodb"),
        ({"CLOCKWORK_POSTGRES_POOL": "1"}, "CLOCKWORK_POSTGRES_POOL: "),
        ({"CLOCKWORK_POSTGRES_SCHEMA": "Blue; drop"}, "CLOCKWORK_POSTGRES_SCHEMA: "),
        ({"CLOCKWORK_POSTGRES_TLS_CA": "c", "CLOCKWORK_POSTGRES_TLS_CERT": "c"}, "CLOCKWORK_POSTGRES_TLS_KEY: "),
        ({"CLOCKWORK_POSTGRES_TLS_CA": "c", "CLOCKWORK_POSTGRES_TLS_KEY": "k"}, "CLOCKWORK_POSTGRES_TLS_CERT: "),
        (
            {"CLOCKWORK_POSTGRES_TLS_CERT": "c", "CLOCKWORK_POSTGRES_TLS_KEY": "k"},
            "CLOCKWORK_POSTGRES_TLS_CA: is needed with CLOCKWORK_POSTGRES_TLS_CERT",
        ),
    ],
)
def test_settings_of_a_database_that_do_not_fit_together_stop_the_start(environ: dict[str, str], named: str) -> None:
    line = refusal(POSTGRESQL | environ)

    assert named in line
    assert "hush" not in line


def test_resources_are_not_made_in_a_database_unless_it_is_asked_for() -> None:
    # An endpoint of DynamoDB that is left over in the environment says nothing about this store.
    environ = POSTGRESQL | {"DYNAMODB_ENDPOINT": "http://127.0.0.1:8000"}
    assert load_settings(environ).kafka.create_resources is False
    assert load_settings(environ | {"CLOCKWORK_CREATE_RESOURCES": "true"}).kafka.create_resources is True
