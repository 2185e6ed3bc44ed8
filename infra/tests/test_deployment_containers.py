"""Promises of the image, the compose files and the chart, as far as the files show them."""

import functools
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from clockwork.settings.digests import OWN
from clockwork.settings.model import HttpSettings
from clockwork.settings.sources import load_settings, setting_names
from infra.helm.digest import digest

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = (ROOT / "infra/docker/Dockerfile").read_text(encoding="utf-8")
CLUSTER: Final = yaml.safe_load((ROOT / "infra/compose.cluster.yaml").read_text(encoding="utf-8"))
RENDERED: Final = sorted((ROOT / "infra/helm/rendered").glob("*.yaml"))
CLUSTER_DOMAIN: Final = ".svc.cluster.local"
SETTINGS: Final = {setting.name for setting in setting_names()}


# --- the image


def test_the_image_is_pinned_runs_without_rights_and_has_two_stages() -> None:
    bases = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert [re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base) is not None for base in bases] == [True]
    assert len(re.findall(r"^FROM \$\{BASE\}", DOCKERFILE, re.MULTILINE)) == 2
    last = DOCKERFILE.rpartition("FROM ")[2]
    assert re.findall(r"^USER (\S+)$", last, re.MULTILINE) == ["10001:10001"]
    assert 'ENTRYPOINT ["python", "-m", "clockwork"]' in last
    assert "--constraint constraints.txt" in DOCKERFILE


def test_the_image_holds_the_service_alone() -> None:
    # DynamoDB Local may not be passed on; tests and tools have no business there.
    copied = re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
    assert copied == ["pyproject.toml constraints.txt README.md ./", "clockwork ./clockwork"]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert kept == {"pyproject.toml", "constraints.txt", "README.md", "clockwork"}


def test_the_settings_of_the_image_exist() -> None:
    assert set(re.findall(r"\b(CLOCKWORK_\w+)=", DOCKERFILE)) <= SETTINGS


# --- the cluster in containers


def test_prometheus_may_call_each_node_by_its_name() -> None:
    scraped = yaml.safe_load((ROOT / "infra/prometheus/prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    named = {target.partition(":")[0] for target in scraped[0]["static_configs"][0]["targets"]}
    for node in named:
        assert named == set(CLUSTER["services"][node]["environment"]["CLOCKWORK_HTTP_HOSTS"].split(","))


def test_three_nodes_differ_in_name_and_port_only_and_open_nothing_to_other_machines() -> None:
    services = CLUSTER["services"]
    nodes = {name: service for name, service in services.items() if name.startswith("node-")}
    assert len(nodes) == 3
    assert len({service["environment"]["CLOCKWORK_INSTANCE_ID"] for service in nodes.values()}) == 3
    rest = [
        {k: v for k, v in service.items() if k not in {"ports", "environment"}}
        | {k: v for k, v in service["environment"].items() if k != "CLOCKWORK_INSTANCE_ID"}
        for service in nodes.values()
    ]
    assert rest[0] == rest[1] == rest[2]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len(ports) == len(set(ports))
    for node in nodes.values():
        assert {name for name in node["environment"] if name.startswith(("CLOCKWORK_", "KAFKA_"))} <= SETTINGS
        assert node["read_only"] is True
        assert node["tmpfs"]


def test_every_image_of_the_cluster_is_pinned() -> None:
    for service in CLUSTER["services"].values():
        if "image" in service and "build" not in service:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_prometheus_and_grafana_find_the_files_that_are_mounted() -> None:
    config = yaml.safe_load((ROOT / "infra/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    assert all((ROOT / "infra/prometheus" / name).exists() for name in config["rule_files"])
    targets = config["scrape_configs"][0]["static_configs"][0]["targets"]
    assert {target.partition(":")[0] for target in targets} == {n for n in CLUSTER["services"] if n.startswith("node-")}
    folder = ROOT / "infra/grafana/provisioning"
    source = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text(encoding="utf-8"))["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((folder / "dashboards/clockwork.yaml").read_text(encoding="utf-8"))["providers"][0]
    mounts = CLUSTER["services"]["grafana"]["volumes"]
    assert any(mount.split(":")[:2] == ["./grafana", provider["options"]["path"]] for mount in mounts)


# --- the chart


@functools.cache
def objects(name: str) -> list[dict[str, Any]]:
    text = (ROOT / f"infra/helm/rendered/{name}.yaml").read_text(encoding="utf-8")
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(name: str, kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in objects(name) if each["kind"] == kind}


def pods(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind in ("Deployment", "StatefulSet", "Job"):
        found |= {key: each["spec"]["template"]["spec"] for key, each in of_kind(name, kind).items()}
    return found


def test_the_stored_rendering_is_of_this_chart_and_untouched() -> None:
    stored = (ROOT / "infra/helm/rendered/SOURCE").read_text(encoding="utf-8").strip()
    assert stored == digest(), "chart or rendering have changed: run make charts"
    assert [path.stem for path in RENDERED] == ["full", "people", "plain", "postgresql", "typed"]


def test_settings_as_plain_yaml_reach_a_node_as_the_texts_that_it_reads() -> None:
    (api,) = of_kind("typed", "Deployment").values()
    (container,) = api["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each["value"] for each in container["env"]}
    # YAML numbers are floats to Helm, and `off` is false; "" and null are left out.
    assert given["CLOCKWORK_RETENTION_MS"] == "604800000"
    assert given["CLOCKWORK_TOPIC_WAIT_MS"] == "0"
    assert given["KAFKA_BROKERS"] == "kafka-0.kafka:9092,kafka-1.kafka:9092"
    assert not {"CLOCKWORK_INSTANCE_ID", "CLOCKWORK_LOG_LEVEL"} & given.keys()
    settings = load_settings(given)
    assert (settings.dynamo.search, settings.log.tracing, settings.access.commands) == ("off", "off", "on")
    assert (settings.intake.jobs, settings.runner.jobs, given["CLOCKWORK_JOB_AUDIT_MS"]) == ("on", "on", "3600000")
    (scaler,) = [each for name, each in of_kind("typed", "HorizontalPodAutoscaler").items() if name.endswith("worker")]
    (metric,) = scaler["spec"]["metrics"]
    assert metric["pods"]["target"]["averageValue"] == "2000000"
    assert container["image"] == "clockwork:20261129"


@pytest.mark.parametrize("name", ["plain", "full", "postgresql", "people"])
def test_every_pod_is_restricted_and_has_no_service_links(name: str) -> None:
    assert pods(name)
    for pod in pods(name).values():
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        # Kubernetes kills what has not stopped by then.
        assert pod["terminationGracePeriodSeconds"] * 1_000 > HttpSettings().drain_timeout_ms
        assert {spread["topologyKey"] for spread in pod["topologySpreadConstraints"]} == {
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        }
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
            assert "cpu" not in container["resources"]["limits"]


@pytest.mark.parametrize("name", ["plain", "full", "postgresql", "people"])
def test_every_node_has_probes_a_budget_and_known_settings(name: str) -> None:
    nodes = {key: pod for key, pod in pods(name).items() if not key.endswith("-init")}
    assert (
        of_kind(name, "PodDisruptionBudget").keys()
        == nodes.keys()
        == {
            "clockwork-api",
            "clockwork-worker",
            *(["clockwork-people"] if name == "people" else []),
        }
    )
    scheme = "HTTPS" if name == "full" else "HTTP"
    for pod in nodes.values():
        container = pod["containers"][0]
        paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
        assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
        assert container["readinessProbe"]["httpGet"]["scheme"] == scheme
        assert {variable["name"] for variable in container["env"]} <= SETTINGS
    selectors = [each["spec"]["selector"]["matchLabels"] for each in of_kind(name, "PodDisruptionBudget").values()]
    labels = [
        each["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "StatefulSet")
        for each in of_kind(name, kind).values()
    ]
    assert [sum(selector.items() <= label.items() for label in labels) for selector in selectors] == [1] * len(nodes)


@pytest.mark.parametrize("name", ["plain", "full", "postgresql", "people"])
def test_nodes_take_calls_by_the_names_of_their_services(name: str) -> None:
    for pod in pods(name).values():
        (value,) = (each["value"] for each in pod["containers"][0]["env"] if each["name"] == "CLOCKWORK_HTTP_HOSTS")
        hosts = set(load_settings({"CLOCKWORK_HTTP_HOSTS": value}).http.hosts or ())
        services = of_kind(name, "Service").keys()
        assert hosts == {
            f"{s}{d}" for s in services for d in ("", *(f".clockwork{d}" for d in ("", ".svc", CLUSTER_DOMAIN)))
        }


def test_workers_keep_their_names_and_grow_with_what_is_due() -> None:
    worker = pods("full")["clockwork-worker"]["containers"][0]
    assert worker["args"] == ["--role", "worker"]
    named = {variable["name"]: variable for variable in worker["env"]}
    assert named["CLOCKWORK_INSTANCE_ID"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    metric = of_kind("full", "HorizontalPodAutoscaler")["clockwork-worker"]["spec"]["metrics"][0]["pods"]["metric"]
    assert metric["name"] == "clockwork_due"
    served = yaml.safe_load((ROOT / "infra/prometheus/adapter.yaml").read_text(encoding="utf-8"))["rules"][0]
    assert served["name"]["as"] == metric["name"]
    assert served["seriesQuery"].startswith(metric["name"] + "{")
    # The autoscaler alone sets the number of pods.
    assert "replicas" not in of_kind("full", "StatefulSet")["clockwork-worker"]["spec"]


def test_tables_are_made_first_and_by_an_account_that_no_node_has() -> None:
    # After the nodes it would be never: they refuse to start without tables, and an installation waits for them.
    job = of_kind("full", "Job")["clockwork-init"]
    accounts = of_kind("full", "ServiceAccount")
    hooks = [accounts["clockwork-init"], job]
    assert {each["metadata"]["annotations"]["helm.sh/hook"] for each in hooks} == {"pre-install,pre-upgrade"}
    assert accounts["clockwork-init"]["metadata"]["annotations"]["helm.sh/hook-weight"] == "-1"
    used = {name: pod["serviceAccountName"] for name, pod in pods("full").items()}
    assert used == {
        "clockwork-api": "clockwork",
        "clockwork-worker": "clockwork",
        "clockwork-init": "clockwork-init",
    }
    assert set(used.values()) == accounts.keys()


def test_the_owner_of_a_database_s_tables_is_known_to_init_alone_and_its_certificates_to_all() -> None:
    secrets = {
        name: [each["secretRef"]["name"] for each in pod["containers"][0]["envFrom"]]
        for name, pod in pods("postgresql").items()
    }
    # Of two with one key, the later counts.
    assert secrets == {
        "clockwork-api": ["clockwork-node"],
        "clockwork-worker": ["clockwork-node"],
        "clockwork-init": ["clockwork-node", "clockwork-init"],
    }
    for pod in pods("postgresql").values():
        (container,) = pod["containers"]
        given = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        postgres = load_settings(given).postgres
        assert str(postgres.tls_ca) == "/etc/clockwork/postgres/ca.crt"
        assert str(postgres.tls_cert) == "/etc/clockwork/postgres/tls.crt"
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        volumes = {each["name"]: each.get("secret", {}).get("secretName") for each in pod["volumes"]}
        assert mounts["postgres-tls"] == "/etc/clockwork/postgres"
        assert volumes["postgres-tls"] == "clockwork-postgres"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (
            "full",
            {
                "CLOCKWORK_UI_SECRET_FILE": ("clockwork-sessions", "secrets"),
                "CLOCKWORK_OIDC_UI_SECRET_FILE": ("clockwork-issuer", "client-secret"),
                "CLOCKWORK_UI_LINKS": ("clockwork-links", "links.toml"),
            },
        ),
        (
            "people",
            {
                "CLOCKWORK_AUTH_KEYS_FILE": ("clockwork-keys", "keys.toml"),
                "CLOCKWORK_UI_SECRET_FILE": ("clockwork-sessions", "secrets"),
            },
        ),
        ("plain", {}),
    ],
)
def test_every_node_has_the_files_of_callers_and_of_the_dashboard(name: str, files: dict[str, tuple[str, str]]) -> None:
    for pod in pods(name).values():
        (container,) = pod["containers"]
        given = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        # No setting is without effect, and none is missing.
        load_settings(given | ({"CLOCKWORK_KAFKA_SASL_PASSWORD": "of a Secret"} if name == "full" else {}))
        assert files.keys() == {each for each in given if each.endswith(("_FILE", "_LINKS"))}
        folders = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
        sources = {
            each["name"]: each.get("secret", {}).get("secretName") or each.get("configMap", {}).get("name")
            for each in pod["volumes"]
        }
        for setting, (source, file) in files.items():
            folder, _, last = given[setting].rpartition("/")
            assert (sources[folders[folder]], last) == (source, file)


def test_nodes_for_people_have_the_dashboard_and_an_address_of_their_own() -> None:
    shown = {
        name: {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}.get("CLOCKWORK_UI")
        for name, pod in pods("people").items()
    }
    assert shown == {"clockwork-api": "off", "clockwork-people": "on", "clockwork-worker": None}
    services = of_kind("people", "Service")
    labels = {
        name: each["spec"]["template"]["metadata"]["labels"] for name, each in of_kind("people", "Deployment").items()
    }
    for service, node in (("clockwork", "clockwork-api"), ("clockwork-people", "clockwork-people")):
        selector = services[service]["spec"]["selector"].items()
        assert [name for name, each in labels.items() if selector <= each.items()] == [node]
    assert {"CLOCKWORK_UI", "CLOCKWORK_UI_READ_UNITS_PER_SECOND"} <= OWN  # it is no difference to be told of


def test_no_secret_is_written_into_the_chart() -> None:
    for name in ("plain", "full", "postgresql", "people"):
        assert not of_kind(name, "Secret")
        for pod in pods(name).values():
            for variable in pod["containers"][0]["env"]:
                assert not re.search("(PASSWORD|SECRET)(?!_FILE)", variable["name"])
