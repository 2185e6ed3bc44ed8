"""`python -m infra.settings_page`: writes docs/settings.md and config/default.toml from the settings.

A test compares both with the settings.
"""

import argparse
import json
import textwrap
from pathlib import Path
from typing import Final

from clockwork.settings.sources import SettingName, setting_groups

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "settings.md"
FILE: Final = ROOT / "config" / "default.toml"
PAGE_HEAD: Final = """# Settings

Environment variables, or the same names in a TOML file that `CLOCKWORK_CONFIG` names (the environment wins). A wrong value
or an unknown `CLOCKWORK_…` name stops the start with a line that names it; an empty variable counts as absent. This page is
written by `python -m infra.settings_page`.
"""
FILE_HEAD: Final = """# Every setting with its default, for CLOCKWORK_CONFIG=config/default.toml, or to copy from.
# Names are those of the environment, in any letter case; the environment wins. An unknown name stops the start.
# Lines with "#NAME" have no default. Written by `python -m infra.settings_page`.
"""


def page_text() -> str:
    """docs/settings.md: a table for each group, in the order of the groups."""
    tables = (f"## {title.rstrip('.')}\n\n{_table(names)}" for title, names in setting_groups().items())
    return "\n".join([PAGE_HEAD, *tables])


def file_text() -> str:
    """config/default.toml: the reason of each setting as a comment above its line."""
    groups = (f"# --- {title.rstrip('.')}\n\n{_lines(names)}" for title, names in setting_groups().items())
    return "\n".join([FILE_HEAD, *groups])


def _table(names: tuple[SettingName, ...]) -> str:
    rows = (
        f"| `{each.name}` | {'–' if each.default is None else f'`{_text(each.default)}`'} | {each.reason} |\n"
        for each in names
    )
    return "| name | default | |\n|---|---|---|\n" + "".join(rows)


def _lines(names: tuple[SettingName, ...]) -> str:
    return "".join(
        f"{textwrap.fill(each.reason, 118, initial_indent='# ', subsequent_indent='# ')}\n{_line(each)}\n"
        for each in names
    )


def _line(setting: SettingName) -> str:
    match setting.default:
        case None:
            return f'#{setting.name} = ""'
        case bool() | int():
            return f"{setting.name} = {_text(setting.default)}"
        case _:
            return f"{setting.name} = {json.dumps(_text(setting.default))}"


def _text(default: object) -> str:
    match default:
        case bool():
            return str(default).lower()
        case tuple():
            return ",".join(str(part) for part in default)
        case _:
            return str(default)


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m infra.settings_page", description=__doc__).parse_args()
    PAGE.write_text(page_text(), encoding="utf-8")
    FILE.write_text(file_text(), encoding="utf-8")
