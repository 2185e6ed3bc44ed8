"""Lines of the commands for a person: on stderr, so that stdout is for what a command makes."""

import sys


def report(line: str) -> None:
    """Says one line."""
    print(f"migrate: {line}", file=sys.stderr)  # noqa: T201
