"""Where the values of settings come from: the environment, and the file that it names; see `clockwork.settings.model`."""

import difflib
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Final

from clockwork.settings.parsing import text_of, toml_of

FILE_NAME: Final = "CLOCKWORK_CONFIG"
"""Names the TOML file; read from the environment only."""
PREFIX: Final = "CLOCKWORK_"
LOCAL_PREFIX: Final = "CLOCKWORK_LOCAL_"
"""Belongs to the tests and the local services; not ours to judge."""
_FOREIGN: Final = re.compile(r"CLOCKWORK_(SERVICE_HOST|SERVICE_PORT.*|PORT(_.*)?|URL|API_KEY)")
"""What Kubernetes puts into every pod's environment when a Service is called `clockwork`, and the command line's own."""


def values_of(environ: Mapping[str, str], known: Set[str], problems: list[str]) -> dict[str, str]:
    """What is given, by name. Adds a line to `problems` for each name that is not `known`, and for a file that cannot be
    read."""
    return {**_from_file(environ, known, problems), **_from_environ(environ, known, problems)}


def _from_environ(environ: Mapping[str, str], known: Set[str], problems: list[str]) -> dict[str, str]:
    for name in environ:
        ours = name.upper().startswith(PREFIX) and not name.startswith(LOCAL_PREFIX)
        if ours and name not in known and name != FILE_NAME and not _FOREIGN.fullmatch(name):
            problems.append(_unknown(name, known, "environment"))
    return {name: environ[name] for name in known if environ.get(name)}


def _from_file(environ: Mapping[str, str], known: Set[str], problems: list[str]) -> dict[str, str]:
    path = environ.get(FILE_NAME)
    if not path:
        return {}
    try:
        document = toml_of(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        problems.append(f"{FILE_NAME}: {path} cannot be read: {error}")
        return {}
    values: dict[str, str] = {}
    for name, value in document.items():
        text = text_of(value)
        if name.upper() not in known:
            problems.append(_unknown(name, known, path))
        elif name.upper() in values:
            problems.append(f"{name.upper()}: twice in {path}")
        elif text is None:
            problems.append(f"{name.upper()}: should be a text, a number, true or false in {path}")
        else:
            values[name.upper()] = text
    return values


def _unknown(name: str, known: Set[str], where: str) -> str:
    close = difflib.get_close_matches(name.upper(), sorted(known), n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    return f"{name}: unknown name in {where}{hint}"
