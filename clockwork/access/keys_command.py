"""The command `clockwork keys new`: generates an API key and shows it once, with the entry that holds its hash."""

import json
from datetime import UTC, datetime, timedelta
from typing import Final

import click
from pydantic import ValidationError

from clockwork.access.keys import KeyEntry, hash_of, new_key
from clockwork.clock import SystemClock
from clockwork.domain.rights import Right

DAYS_MAX: Final = 3_650
RIGHTS_DEFAULT: Final = ("create", "cancel", "read")


@click.group()
def keys() -> None:
    """Generate API keys."""


@keys.command(
    "new",
    epilog="\b\nExample:\n  clockwork keys new --name shop --client 'shop*' --topic orders --days 90 >> keys.toml",
)
@click.option("--name", required=True, help="The key's holder, for logs.")
@click.option("--client", "clients", multiple=True, required=True, help="A clientId, or prefix*; repeatable.")
@click.option("--topic", "topics", multiple=True, help="A topic, or prefix*; repeatable.")
@click.option(
    "--right",
    "rights",
    multiple=True,
    type=click.Choice([right.value for right in Right]),
    default=RIGHTS_DEFAULT,
    show_default=True,
    help="Repeatable.",
)
@click.option("--redacted", is_flag=True, help="Its holder sees schedules without taskData and header values.")
@click.option("--days", type=click.IntRange(1, DAYS_MAX), help="Days until it expires. By default it does not.")
def new(
    name: str,
    clients: tuple[str, ...],
    topics: tuple[str, ...],
    rights: tuple[str, ...],
    redacted: bool,
    days: int | None,
) -> None:
    """Generate an API key.

    The key goes to standard error, once. Its entry for the file that CLOCKWORK_AUTH_KEYS_FILE names goes to standard output.
    """
    now = datetime.fromtimestamp(SystemClock().now_ms() // 1_000, UTC)
    key, key_id = new_key()
    try:
        key_entry = KeyEntry(
            id=key_id,
            name=name,
            hash=hash_of(key),
            clients=list(clients),
            topics=list(topics),
            rights=[Right(right) for right in rights],
            redacted=redacted,
            expires=now + timedelta(days=days) if days is not None else None,
        )
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False, include_context=False)
        raise click.UsageError("; ".join(f"{_option_of(each['loc'][0])}: {each['msg']}" for each in wrong)) from None
    click.echo("The key. It is shown only once; give it to its caller and to no one else:\n", err=True)
    click.echo(f"    {key}\n", err=True)
    click.echo("Its entry for the file that CLOCKWORK_AUTH_KEYS_FILE names:\n", err=True)
    click.echo(entry(key_entry), nl=False)


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
    if key_entry.redacted:
        lines.append("redacted = true")
    return "\n".join(lines) + "\n"


def _option_of(field: int | str) -> str:
    return {"clients": "--client", "topics": "--topic", "rights": "--right"}.get(str(field), f"--{field}")
