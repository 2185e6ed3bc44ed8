"""Sources of settings: the environment, and the TOML file that it names; see `clockwork.config`.

Both are read alike. Blank ends of a value are cut, secrets included: a carriage return or a newline at the end comes from
the way the value was written down (a file with Windows line ends, `echo` into a Secret) and would otherwise appear as a
library's traceback or as a password that is refused. A control character inside a value is refused by name.
"""

import difflib
import re
import unicodedata
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Final

from clockwork.config_values import text_of, toml_of

FILE_NAME: Final = "CLOCKWORK_CONFIG"
"""Name of the environment variable that holds the path of the TOML file."""
PREFIX: Final = "CLOCKWORK_"
LOCAL_PREFIX: Final = "CLOCKWORK_LOCAL_"
"""Prefix of variables that the tests and the local services read; they are not checked here."""
_OTHER_NAMES: Final = frozenset({FILE_NAME, "CLOCKWORK_URL", "CLOCKWORK_API_KEY"})
"""Variables that are no settings of a node: the last two are the command line's."""
_SERVICE_LINK: Final = re.compile(
    r"CLOCKWORK_([A-Z0-9_]+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
_SERVICE_LINK_PORT: Final = re.compile(r"CLOCKWORK_([A-Z0-9_]+_)?PORT")
_SERVICE_LINK_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


def values_of(environ: Mapping[str, str], known: Set[str], problems: list[str]) -> dict[str, str]:
    """The given values by setting name, blank ends cut; the environment wins over the file.

    Adds a line to `problems` for each name that is not `known`, for each value with a control character in it, and for
    a file that cannot be read.
    """
    values = {**_from_file(environ, known, problems), **_from_environ(environ, known, problems)}
    problems += [
        f"{name}: holds a control character"
        for name, text in values.items()
        if any(unicodedata.category(character) == "Cc" for character in text)
    ]
    return values


def is_service_link(name: str, value: str) -> bool:
    """True if Kubernetes has set this variable, as it does in every pod for every Service of its namespace.

    A Service `clockwork-http` gives `CLOCKWORK_HTTP_PORT=tcp://10.0.0.1:80`, which is a setting's name too. So a name in
    `_PORT` counts as a service link only with such an address: a port that was meant for us, misspelt or not, is a number.
    """
    has_address = _SERVICE_LINK_PORT.fullmatch(name) is not None and _SERVICE_LINK_ADDRESS.match(value) is not None
    return has_address or _SERVICE_LINK.fullmatch(name) is not None


def _from_environ(environ: Mapping[str, str], known: Set[str], problems: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in environ.items():
        if is_service_link(name, value):
            continue
        text = value.strip()
        if name in known:
            # An empty variable counts as absent.
            if text:
                values[name] = text
        elif name.upper().startswith(PREFIX) and not name.startswith(LOCAL_PREFIX) and name not in _OTHER_NAMES:
            problems.append(_unknown(name, known, "environment"))
    return values


def _from_file(environ: Mapping[str, str], known: Set[str], problems: list[str]) -> dict[str, str]:
    path = environ.get(FILE_NAME, "").strip()
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
            values[name.upper()] = text.strip()
    return values


def _unknown(name: str, known: Set[str], where: str) -> str:
    close = difflib.get_close_matches(name.upper(), sorted(known), n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    return f"{name}: unknown name in {where}{hint}"
