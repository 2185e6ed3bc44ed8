"""The command `python -m clockwork keys new`: generates an API key and shows it once, with the entry that holds its hash."""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from clockwork.access.keys import KeyEntry, hash_of, new_key
from clockwork.clock import Clock, SystemClock
from clockwork.domain.rights import Right


def main(arguments: Sequence[str], clock: Clock | None = None) -> int:
    """Run `keys …`. Returns: the exit code."""
    chosen = _parser().parse_args(arguments)
    now = datetime.fromtimestamp((clock or SystemClock()).now_ms() // 1_000, UTC)
    key, key_id = new_key()
    try:
        key_entry = KeyEntry(
            id=key_id,
            name=chosen.name,
            hash=hash_of(key),
            clients=chosen.client,
            topics=chosen.topic,
            rights=[Right(right) for right in chosen.right or ("create", "cancel", "read")],
            expires=now + timedelta(days=chosen.days) if chosen.days is not None else None,
        )
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False, include_context=False):
            print(f"clockwork: {_option_of(each['loc'][0])}: {each['msg']}", file=sys.stderr)  # noqa: T201
        return 2
    print("The key. It is shown only once; give it to its caller and to no one else:\n", file=sys.stderr)  # noqa: T201
    print(f"    {key}\n", file=sys.stderr)  # noqa: T201
    print("Its entry for the file that CLOCKWORK_AUTH_KEYS_FILE names:\n", file=sys.stderr)  # noqa: T201
    print(entry(key_entry), end="")  # noqa: T201
    return 0


def entry(key_entry: KeyEntry) -> str:
    """Return an entry as text of the keys file. A JSON string of printable characters is a TOML string as well."""
    named = {
        "id": key_entry.id,
        "name": key_entry.name,
        "hash": key_entry.hash,
        "clients": key_entry.clients,
        "topics": key_entry.topics,
        "rights": [right.value for right in key_entry.rights],
    }
    lines = ["[[keys]]", *(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in named.items())]
    if key_entry.expires is not None:
        lines.append(f"expires = {key_entry.expires.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}")
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clockwork keys", description="API keys.")
    new = parser.add_subparsers(dest="command", required=True).add_parser("new", help="generate a key")
    new.add_argument("--name", required=True, help="the key's holder, for logs")
    new.add_argument("--client", action="append", required=True, help="a clientId, or prefix*; may be given again")
    new.add_argument("--topic", action="append", default=[], help="a topic, or prefix*; may be given again")
    new.add_argument(
        "--right",
        action="append",
        choices=[right.value for right in Right],
        help="may be given again; default: create, cancel and read",
    )
    new.add_argument(
        "--days", type=int, choices=range(1, 3_651), metavar="DAYS", help="until it expires; default: never"
    )
    return parser


def _option_of(field: int | str) -> str:
    return {"clients": "--client", "topics": "--topic", "rights": "--right"}.get(str(field), f"--{field}")
