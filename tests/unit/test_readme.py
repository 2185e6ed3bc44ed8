"""The README must not lie about what can be checked."""

import re
from pathlib import Path

from clockwork.settings.model import setting_names

README = Path(__file__).parents[2] / "README.md"


def test_the_settings_table_names_every_setting_and_no_other() -> None:
    listed = re.findall(r"^\| `([A-Z][A-Z_]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [setting.name for setting in setting_names()]


def test_the_settings_table_shows_the_real_defaults() -> None:
    text = README.read_text(encoding="utf-8")
    for setting in setting_names():
        if setting.default is None:
            shown = "–"
        elif isinstance(setting.default, tuple):
            shown = f"`{','.join(setting.default)}`"
        else:
            shown = f"`{setting.default}`"
        assert f"| `{setting.name}` | {shown} |" in text
