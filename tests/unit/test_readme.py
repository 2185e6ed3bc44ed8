"""The README and the page of settings say what the settings say."""

import re
from pathlib import Path

from clockwork.settings.sources import setting_names
from infra.settings_page import FILE, PAGE, file_text, page_text

README = Path(__file__).parents[2] / "README.md"


def test_the_page_and_the_file_of_settings_show_every_setting_with_its_default_and_reason() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_text(), "run: python -m infra.settings_page"
    assert FILE.read_text(encoding="utf-8") == file_text(), "run: python -m infra.settings_page"
    assert all(setting.reason for setting in setting_names())


def test_the_readme_names_no_setting_that_does_not_exist() -> None:
    _, _, section = README.read_text(encoding="utf-8").partition("## Settings")
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", section)) - {"CLOCKWORK_CONFIG"}
    assert len(named) > 20
    assert named <= {setting.name for setting in setting_names()}
