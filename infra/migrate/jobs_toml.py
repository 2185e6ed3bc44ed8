"""The file of `clockwork job apply`, written from what another scheduler had. A part that does not map is a comment."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

JOB_ID_CHARS_MAX: Final = 120
_NOT_IN_A_KEY: Final = re.compile(r"[^A-Za-z0-9_-]+")

_NOT_IN_A_COMMENT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters, and all that some reader takes for the end of a line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertedJob:
    """One job of a file."""

    name: str
    """Words that its id is made of."""
    fields: Mapping[str, Any]
    """As `POST /jobs` takes them."""
    comments: Sequence[str] = ()
    """Parts that do not map, or have to be decided by a person."""
    converted: bool = True
    """False: only its comments are written."""


def jobs_file(
    jobs: Iterable[ConvertedJob], *, name: str, client_id: str, topic: str, comments: Sequence[str] = ()
) -> str:
    """The text of a file. `topic`: the destination of all its jobs."""
    lines = [*_commented(comments), f"name = {_value(name)}", f"clientId = {_value(client_id)}", ""]
    lines += ["[defaults]", f"delivery = {{ topic = {_value(topic)} }}", ""]
    taken: set[str] = set()
    for job in jobs:
        if job.converted:
            lines.append(f"[jobs.{_id(job.name, taken)}]")
            lines += _commented(job.comments)
            lines += (f"{key} = {_value(value)}" for key, value in job.fields.items())
        else:
            lines += _commented([f"not converted: {job.name}", *job.comments])
        lines.append("")
    return "\n".join(lines)


def _id(name: str, taken: set[str]) -> str:
    """An id that is a bare key of TOML; a second one of the same words gets a number."""
    base = _NOT_IN_A_KEY.sub("-", name).strip("-")[:JOB_ID_CHARS_MAX] or "job"
    number, chosen = 1, base
    while chosen in taken:
        number += 1
        chosen = f"{base}-{number}"
    taken.add(chosen)
    return chosen


def _commented(comments: Iterable[str]) -> list[str]:
    return [f"# {_NOT_IN_A_COMMENT.sub(' ', comment)}" for comment in comments]


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case str():
            # JSON's escapes are TOML's; of control characters JSON leaves DEL as it is.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            return f"{{ {', '.join(f'{key} = {_value(each)}' for key, each in value.items())} }}"
        case _:
            return f"[{', '.join(map(_value, value))}]"
