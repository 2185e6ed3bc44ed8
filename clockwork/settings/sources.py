"""Sources of settings: the environment, then the TOML file that `CLOCKWORK_CONFIG` names (the same names, in any letter
case), then the default.

The only reader of the environment. An empty environment variable counts as absent, because compose files and charts make
one of a value that was not given. Blank ends of a value are cut, secrets included: a carriage return or a newline at the end
comes from the way the value was written down (a file with Windows line ends, `echo` into a Secret), and would otherwise
appear as a library's traceback or as a password that is refused. A control character inside a value is refused by name.
pydantic is given text only (TOML values included), so that `true` is no number and both sources mean the same. Rejected:
pydantic-settings, which lets unknown names pass.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from clockwork.errors import CannotStart
from clockwork.settings.checks import problems_of
from clockwork.settings.model import Settings
from clockwork.settings.parsing import text_of, toml_of

FILE_NAME: Final = "CLOCKWORK_CONFIG"
"""Name of the environment variable that holds the path of the TOML file."""
PREFIX: Final = "CLOCKWORK_"
LOCAL_PREFIX: Final = "CLOCKWORK_LOCAL_"
"""Prefix of variables that the tests and the local services read; they are not checked here."""
COMMAND_LINE_NAMES: Final = frozenset({"CLOCKWORK_URL", "CLOCKWORK_API_KEY"})
"""Variables that only the command line reads."""
_SERVICE_LINK: Final = re.compile(
    r"CLOCKWORK_PORT(_.*)?|CLOCKWORK_([A-Z0-9_]+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
_SERVICE_LINK_PORT: Final = re.compile(r"CLOCKWORK_[A-Z0-9_]+_PORT")
_SERVICE_LINK_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingName:
    """One name that may be set, for messages, documents and checks."""

    name: str
    default: object
    reason: str


_Component = TypeVar("_Component")


def setting_groups() -> dict[str, tuple[SettingName, ...]]:
    """The names by group: the first line of each class's docstring, in the order of `Settings`. A name stands in the first
    group that has it."""
    seen: set[str] = set()
    groups: dict[str, tuple[SettingName, ...]] = {}
    for component in _components().values():
        new = [each for each in _names_in(component) if each.name not in seen]
        seen |= {each.name for each in new}
        groups[(component.__doc__ or "").partition("\n")[0]] = tuple(new)
    return groups


def setting_names() -> tuple[SettingName, ...]:
    """Every name, once, in the order of the groups."""
    return tuple(each for names in setting_groups().values() for each in names)


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Reads and checks everything; the environment is not looked at again.

    Raises: CannotStart, naming every unknown name and every wrong value, never a value itself.
    """
    problems: list[str] = []
    values = values_of(environ, {each.name for each in setting_names()}, problems)
    settings = Settings(**{name: _component(kind, values, problems) for name, kind in _components().items()})
    if not problems:
        problems += problems_of(settings)
    if problems:
        raise CannotStart("settings: " + "; ".join(dict.fromkeys(problems)))
    dynamo, kafka = settings.dynamo, settings.kafka
    dead_letter_topics = settings.dead_letters.of_clients()
    local = settings.store.in_process or (settings.store.kind == "dynamodb" and dynamo.endpoint is not None)
    create = dynamo.create_resources if dynamo.create_resources is not None else local
    return replace(
        settings,
        http=replace(settings.http, checks_host=settings.access.auth == "none"),
        dynamo=replace(dynamo, create_resources=create),
        kafka=replace(
            kafka,
            create_resources=create,
            commands=settings.access.commands == "on",
            activity=settings.log.events == "on",
            client_dead_letter_topics=tuple(sorted(set(dead_letter_topics.values()))),
        ),
        runner=replace(
            settings.runner, dead_letter_topic=kafka.dead_letters_topic, dead_letter_topics=dead_letter_topics
        ),
    )


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

    A Service `clockwork-http` gives `CLOCKWORK_HTTP_PORT=tcp://10.0.0.1:80`, the name of a setting too. So a name of
    the form `CLOCKWORK_<service>_PORT` counts as a service link only with such an address: a port that was meant for a
    setting, misspelt or not, is a number.
    """
    if _SERVICE_LINK.fullmatch(name):
        return True
    return _SERVICE_LINK_PORT.fullmatch(name) is not None and _SERVICE_LINK_ADDRESS.match(value) is not None


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
        elif _is_ours(name) and name not in {FILE_NAME, *COMMAND_LINE_NAMES}:
            problems.append(_unknown(name, known, "environment"))
    return values


def _is_ours(name: str) -> bool:
    return name.upper().startswith(PREFIX) and not name.startswith(LOCAL_PREFIX)


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


def _components() -> dict[str, type[Any]]:
    """The classes of `Settings`, by field."""
    return get_type_hints(Settings)


def _names_in(component: type[Any]) -> Iterator[SettingName]:
    hints = get_type_hints(component, include_extras=True)
    for each in fields(component):
        for info in getattr(hints[each.name], "__metadata__", ()):
            if isinstance(info, FieldInfo) and info.alias is not None:
                yield SettingName(name=info.alias, default=each.default, reason=info.description or "")


def setting_values(settings: Settings) -> Iterator[tuple[str, object]]:
    """The values of loaded settings, by name."""
    for each in fields(settings):
        component = getattr(settings, each.name)
        hints = get_type_hints(type(component), include_extras=True)
        for part in fields(component):
            for info in getattr(hints[part.name], "__metadata__", ()):
                if isinstance(info, FieldInfo) and info.alias is not None:
                    yield info.alias, getattr(component, part.name)


def _component(component: type[_Component], values: Mapping[str, str], problems: list[str]) -> _Component:
    """One class from its values; its defaults stand in while further problems are collected."""
    try:
        return TypeAdapter(component).validate_python(values)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False, include_context=False)
        problems += [f"{each['loc'][0]}: {each['msg']}" for each in wrong]
        return component()
