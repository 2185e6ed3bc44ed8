"""`python -m clockwork keys new`: makes an API key. The key is shown once and kept nowhere; its entry goes into the file."""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from clockwork.access.keys import KeyForm, hash_of, new_credential
from clockwork.clock import Clock, SystemClock
from clockwork.domain.rights import Right


def main(arguments: Sequence[str], clock: Clock | None = None) -> int:
    """Runs `keys …`; returns the exit code."""
    chosen = _parser().parse_args(arguments)
    now = datetime.fromtimestamp((clock or SystemClock()).now_ms() // 1_000, UTC)
    credential, key_id = new_credential()
    try:
        form = KeyForm(
            id=key_id,
            name=chosen.name,
            hash=hash_of(credential).text(),
            clients=chosen.client,
            topics=chosen.topic,
            rights=[Right(right) for right in chosen.right or ("create", "cancel", "read")],
            expires=now + timedelta(days=chosen.days) if chosen.days is not None else None,
        )
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False, include_context=False):
            print(f"clockwork: {_option_of(each['loc'][0])}: {each['msg']}", file=sys.stderr)  # noqa: T201
        return 2
    print("The key. It is shown this once; give it to its caller and to nobody else:\n", file=sys.stderr)  # noqa: T201
    print(f"    {credential}\n", file=sys.stderr)  # noqa: T201
    print("Its entry for the file that CLOCKWORK_AUTH_KEYS_FILE names:\n", file=sys.stderr)  # noqa: T201
    print(entry(form), end="")  # noqa: T201
    return 0


def entry(form: KeyForm) -> str:
    """An entry of the keys' file. What JSON makes of printable text is TOML as well."""
    named = {
        "id": form.id,
        "name": form.name,
        "hash": form.hash,
        "clients": form.clients,
        "topics": form.topics,
        "rights": [right.value for right in form.rights],
    }
    lines = ["[[keys]]", *(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in named.items())]
    if form.expires is not None:
        lines.append(f"expires = {form.expires.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}")
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clockwork keys", description="API keys.")
    new = parser.add_subparsers(dest="command", required=True).add_parser("new", help="make a key")
    new.add_argument("--name", required=True, help="for people: who has it")
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
