"""`python -m infra.kafka.acls --principal User:clockwork --topic orders`: acls.yaml as commands of Kafka's own tool."""

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import yaml

FILE: Final = Path(__file__).with_name("acls.yaml")
EACH_TOPIC: Final = "{topics}"
EACH_DEAD_LETTER_TOPIC: Final = "{dead_letter_topics}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Right:
    """One operation on one resource."""

    resource: Literal["topic", "group", "transactional-id"]
    name: str
    pattern: Literal["literal", "prefixed"]
    operation: str
    reason: str


def rights(
    who: Literal["node", "init"],
    *,
    cluster: str,
    group: str,
    topics: Sequence[str] = (),
    dead_letter_topics: Sequence[str] = (),
) -> Iterator[Right]:
    """The rights of a node or of `init`; a topic that ends in `*` is a prefix."""
    many = {EACH_TOPIC: topics, EACH_DEAD_LETTER_TOPIC: dead_letter_topics}
    for entry in yaml.safe_load(FILE.read_text(encoding="utf-8"))[who]:
        name = entry["name"]
        names = many[name] if name in many else [name.format(cluster=cluster, group=group)]
        for name in names:
            prefixed = name.endswith("*") or entry.get("pattern") == "prefixed"
            for operation in entry["operations"]:
                yield Right(
                    resource=entry["resource"],
                    name=name.removesuffix("*"),
                    pattern="prefixed" if prefixed else "literal",
                    operation=operation,
                    reason=entry["for"],
                )


def command(right: Right, principal: str) -> str:
    """The shell command that grants the right; the caller adds `--bootstrap-server` and the administrator's credentials."""
    words = ["kafka-acls.sh", "--add", "--allow-principal", principal, "--operation", right.operation]
    words += [f"--{right.resource}", right.name, "--resource-pattern-type", right.pattern]
    return shlex.join(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.kafka.acls", description=__doc__)
    parser.add_argument("--principal", required=True, help="e.g. User:clockwork")
    parser.add_argument("--cluster", default="clockwork", help="CLOCKWORK_CLUSTER")
    parser.add_argument("--group", default="clockwork", help="KAFKA_CONSUMER_GROUP")
    parser.add_argument("--topic", action="append", default=[], help="that clients may name; orders* is a prefix")
    parser.add_argument("--dead-letter-topic", action="append", default=[], help="each in CLOCKWORK_DEAD_LETTER_TOPICS")
    parser.add_argument("--init", action="store_true", help="the rights of `python -m clockwork init` in their place")
    chosen = parser.parse_args(arguments)
    found = rights(
        "init" if chosen.init else "node",
        cluster=chosen.cluster,
        group=chosen.group,
        topics=chosen.topic,
        dead_letter_topics=chosen.dead_letter_topic,
    )
    sys.stdout.writelines(f"{command(right, chosen.principal)}\n" for right in found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
