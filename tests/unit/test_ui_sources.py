"""The dashboard's sources, read: nothing inline, nothing inserted as markup, colours that can be told apart."""

import re
from importlib import resources
from itertools import product
from typing import Final

import pytest

UI: Final = resources.files("clockwork.ui")
OURS: Final = {
    f"{folder}{each.name}": each.read_text()
    for folder in ("", "parts/", "pages/", "state/")
    for each in UI.joinpath(folder).iterdir()
    if each.name.endswith(".js")
}
STYLE: Final = UI.joinpath("style.css").read_text()
FORBIDDEN: Final = {
    "innerHTML": "markup from text",
    "outerHTML": "markup from text",
    "insertAdjacentHTML": "markup from text",
    "dangerouslySetInnerHTML": "markup from text",
    "document.write": "markup from text",
    "eval(": "code from text",
    "new Function": "code from text",
    " style=": "an inline style, which the page's policy blocks",
    "javascript:": "code in an address",
    "setAttribute('on": "an inline handler",
    "XMLHttpRequest": "a request past state/api.js",
}


@pytest.mark.parametrize("name", OURS)
def test_no_module_makes_markup_code_or_inline_styles_out_of_text(name: str) -> None:
    found = {word: why for word, why in FORBIDDEN.items() if word in OURS[name]}
    assert found == {}


def test_one_module_alone_talks_to_the_service() -> None:
    assert [name for name, text in OURS.items() if re.search(r"\bfetch\(", text)] == ["state/api.js"]


def test_the_shell_has_nothing_inline() -> None:
    shell = UI.joinpath("index.html").read_text()
    assert "<style" not in shell
    assert not re.search(r"\son\w+=", shell)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", shell))


def test_every_import_is_relative_and_leads_to_a_file() -> None:
    for name, text in OURS.items():
        folder = name.rpartition("/")[0]
        for path in re.findall(r'from "([^"]+)"', text):
            assert path.startswith("."), (name, path)
            parts = [*filter(None, folder.split("/"))]
            for step in path.split("/"):
                if step == "..":
                    parts.pop()
                elif step != ".":
                    parts.append(step)
            assert UI.joinpath("/".join(parts)).is_file(), (name, path)


# --- contrast (WCAG 2.2, 1.4.3 and 1.4.11): what axe calls incomplete, such as text under a sticky bar, is held by tokens

TOKENS: Final = {
    name: (light, dark)
    for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", STYLE)
}
GROUNDS: Final = ("ground", "surface", "raised")
TEXTS: Final = ("ink", "muted", "accent", "good", "warn", "bad", "string", "number", "word")
ON: Final = (
    ("on-accent", "accent"),
    ("on-bad", "bad"),
    ("warn", "warn-soft"),
    ("bad", "bad-soft"),
    ("ink", "bad-soft"),
    ("ink", "warn-soft"),
    ("ink", "accent-soft"),
    ("muted", "accent-soft"),
    ("muted", "bad-soft"),
    ("muted", "warn-soft"),
    ("accent", "accent-soft"),
    ("accent", "warn-soft"),
    ("accent", "bad-soft"),
    ("good", "accent-soft"),
    ("warn", "accent-soft"),
    ("bad", "accent-soft"),
)
MARKS: Final = ("edge", "focus", "accent", "good", "warn", "bad")


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it_in_both_themes(theme: int) -> None:
    pairs = [*product(TEXTS, GROUNDS), *ON]
    low = {pair: round(contrast(*(TOKENS[each][theme] for each in pair)), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_borders_marks_and_the_focus_stand_out_in_both_themes(theme: int) -> None:
    low = {pair: round(contrast(*(TOKENS[each][theme] for each in pair)), 2) for pair in product(MARKS, GROUNDS)}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 3} == {}
