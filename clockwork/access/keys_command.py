"""`clockwork keys new`: makes an API key. The key is shown once and stored nowhere; its entry goes into the keys' file."""

import json
from datetime import UTC, datetime, timedelta
from typing import Final

import click
from pydantic import ValidationError

from clockwork.access.keys import KeyForm, hash_of, new_credential
from clockwork.clock import SystemClock
from clockwork.domain.rights import Right

DAYS_MAX: Final = 3_650
RIGHTS_DEFAULT: Final = ("create", "cancel", "read")


@click.group()
def keys() -> None:
    """Make API keys."""


@keys.command(
    "new",
    epilog="\b\nExample:\n  clockwork keys new --name shop --client 'shop*' --topic orders --days 90 >> keys.toml",
)
@click.option("--name", required=True, help="Name of the key's bearer, for people.")
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
@click.option("--days", type=click.IntRange(1, DAYS_MAX), help="Days until it expires. By default it does not.")
def new(
    name: str, clients: tuple[str, ...], topics: tuple[str, ...], rights: tuple[str, ...], days: int | None
) -> None:
    """Make an API key.

    The key goes to standard error, once. Its entry for the file that CLOCKWORK_AUTH_KEYS_FILE names goes to standard output.
    """
    now = datetime.fromtimestamp(SystemClock().now_ms() // 1_000, UTC)
    credential, key_id = new_credential()
    try:
        form = KeyForm(
            id=key_id,
            name=name,
            hash=hash_of(credential).text(),
            clients=list(clients),
            topics=list(topics),
            rights=[Right(right) for right in rights],
            expires=now + timedelta(days=days) if days is not None else None,
        )
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False, include_context=False)
        raise click.UsageError("; ".join(f"{_option_of(each['loc'][0])}: {each['msg']}" for each in wrong)) from None
    click.echo("The key. It is shown this once; give it to its caller alone:\n", err=True)
    click.echo(f"    {credential}\n", err=True)
    click.echo("Its entry for the file that CLOCKWORK_AUTH_KEYS_FILE names:\n", err=True)
    click.echo(entry(form), nl=False)


def entry(form: KeyForm) -> str:
    """An entry of the keys' file. JSON's form of printable text is TOML's as well."""
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


def _option_of(field: int | str) -> str:
    return {"clients": "--client", "topics": "--topic", "rights": "--right"}.get(str(field), f"--{field}")
