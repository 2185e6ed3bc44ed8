"""Every citation leads somewhere: sections of the design, cases of the protocol models, pages, tests and mutations.

Four kinds are followed, on every page (`*.md`) and in every Python file:

    docs/design.md, 5.4 · design.md, Refusals and topics      a section: its number, or its heading
    x-far · s-seq · p-jump                                    a row of docs/protocol.md
    docs/protocol.md · infra/runbook.md · clockwork/clock.py  a file; in pages also links, with their anchors
    `test_a_name_in_backquotes` · mutation `look before hold` a test; a mutation of the simulation

In Python, sections and cases are cited in comments and docstrings: other strings have names of HTTP headers in them.
"""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = ("clockwork", "tests", "infra", "docs", "config")
DESIGN: Final = ROOT / "docs" / "design.md"
PROTOCOL: Final = ROOT / "docs" / "protocol.md"
MUTATIONS: Final = ROOT / "tests" / "simulation" / "mutations.py"

HEADING: Final = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
NUMBER: Final = r"\d+(?:\.\d+)?"
NUMBERS: Final = re.compile(rf",? +(?:sections? +)?({NUMBER}(?:(?:, | and | to |–){NUMBER})*)(?![\w.]*\w)")
TITLE: Final = re.compile(r", +([^\W\d][^().,:;`|]*)")
DESIGN_NAMED: Final = re.compile(r"(?<![\w/-])(?:docs/)?design\.md")
LABEL: Final = re.compile(r"(?<![\w'/.`#-])(?:x|xe|s|p)-[a-z]+[a-z0-9]*(?:-[a-z0-9]+)*(?![\w=*-])")
ANCHOR: Final = re.compile(r'<a id="([^"]+)">')
FILE: Final = re.compile(
    r"(?<![\w/.-])(?:(?:clockwork|tests|infra|config)(?:/[\w-]+)+(?:\.\w+)+|docs(?:/[\w-]+)+\.md)(?![\w/*{}])"
)
"""`docs/` is also where the service shows its API: only pages of that folder are meant."""
FOLDER: Final = re.compile(r"(?<=`)(?:clockwork|tests|infra|docs|config)(?:/[\w-]+)+(?=`)")
LINK: Final = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
TEST: Final = re.compile(r"`(test_\w+)`(?!\.)")
MUTATION: Final = re.compile(r"\bmutations? ((?:`[^`]+`(?:, | and )?)+)")
FENCE: Final = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)


class Source(NamedTuple):
    """One file, and what of it is read for citations."""

    name: str
    text: str
    """All of it."""
    prose: str
    """A page without its blocks of code; of Python the comments and docstrings."""


def prose_of_python(text: str) -> str:
    """Its comments and docstrings, those of attributes too; nothing of a file without any word of a citation: to read the
    tokens of all files takes ten seconds."""
    if not any(word.search(text) for word in (DESIGN_NAMED, LABEL, FILE, FOLDER, TEST, MUTATION)):
        return ""
    parts = [
        token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    statements = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr))
    parts += [s.value.value for s in statements if isinstance(s.value, ast.Constant) and isinstance(s.value.value, str)]
    return "\n\n".join(parts)


def prose_of_page(text: str) -> str:
    return FENCE.sub("", text)


def in_one_line(prose: str) -> str:
    """Citations may be broken between two lines."""
    return re.sub(r"(?<!\n)\n[ >]*(?!\n)", " ", prose)


def sources() -> Iterator[Source]:
    mine = Path(__file__).resolve()
    pages = [*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))]
    for page in sorted(pages):
        text = page.read_text(encoding="utf-8")
        yield Source(str(page.relative_to(ROOT)), text, in_one_line(prose_of_page(text)))
    for module in sorted(module for folder in FOLDERS for module in (ROOT / folder).rglob("*.py")):
        if module.resolve() != mine:  # has examples of citations that lead nowhere
            text = module.read_text(encoding="utf-8")
            yield Source(str(module.relative_to(ROOT)), text, in_one_line(prose_of_python(text)))


@cache  # and not at import, which every run of any test pays for
def all_sources() -> tuple[Source, ...]:
    return tuple(sources())


def all_pages() -> tuple[Source, ...]:
    return tuple(source for source in all_sources() if source.name.endswith(".md"))


def plain(title: str) -> str:
    """A heading as it is compared: without its number, its marks, and the case of its letters."""
    return re.sub(r"^[\d.]+ +| *[†°`]", "", title).strip().lower()


def sections_of(page: str) -> frozenset[str]:
    """The numbers and the titles of its headings."""
    found: set[str] = set()
    for heading in HEADING.findall(prose_of_page(page)):
        number = re.match(rf"({NUMBER})\.? ", heading)
        found |= {plain(heading)} | ({number[1]} if number else set())
    return frozenset(found)


def sections_cited(prose: str) -> list[str]:
    """Citations of the design, in order: numbers, and titles as `plain` has them."""
    found: list[str] = []
    prose = LINK.sub(r"\1", prose)
    for named in DESIGN_NAMED.finditer(prose):
        rest = prose[named.end() :].removeprefix("`")
        if numbers := NUMBERS.match(rest):
            found += re.findall(NUMBER, numbers[1])
        elif title := TITLE.match(rest):
            found.append(plain(title[1]))
    return found


def labels_cited(prose: str) -> list[str]:
    return LABEL.findall(ANCHOR.sub("", prose))


def slug_of(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def anchors_of(page: Path) -> frozenset[str]:
    text = page.read_text(encoding="utf-8")
    return frozenset(ANCHOR.findall(text)) | {slug_of(h) for h in HEADING.findall(prose_of_page(text))}


def broken_links(page: Path, text: str) -> list[str]:
    """Links of a page to files or anchors that are not there. Those into the network are not followed."""
    found = []
    for _, link in LINK.findall(prose_of_page(text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors_of(target)):
            found.append(link)
    return found


def mutations_cited(prose: str) -> list[str]:
    return [name for group in MUTATION.findall(prose) for name in re.findall(r"`([^`]+)`", group)]


# --- the citations of this repository


def dead(cited: Callable[[Source], list[str]], there: Callable[[str], bool], *, of: str = "") -> str:
    """The citations that lead nowhere, as lines `file: citation`; `of`: how the names of the files end that are read."""
    sought = [source for source in all_sources() if source.name.endswith(of)]
    return "\n".join(f"{source.name}: {what}" for source in sought for what in cited(source) if not there(what))


def test_sections_of_the_design_that_are_cited_are_there() -> None:
    known = sections_of(DESIGN.read_text(encoding="utf-8"))
    assert len(known) > 20
    assert sum(len(sections_cited(source.prose)) for source in all_sources()) >= 5
    assert dead(lambda source: sections_cited(source.prose), known.__contains__) == ""


def test_cases_of_the_models_that_are_cited_have_a_row_in_the_protocols_page() -> None:
    known = ANCHOR.findall(PROTOCOL.read_text(encoding="utf-8"))
    assert len(known) == len(set(known)) > 60
    assert sum(len(labels_cited(source.prose)) for source in all_sources() if source.name.endswith(".py")) >= 10
    assert dead(lambda source: labels_cited(source.prose), set(known).__contains__) == ""


def test_nothing_is_cited_from_the_models_themselves_which_are_not_here() -> None:
    assert dead(lambda source: re.findall(r"protocol-model[\w-]*", source.prose), lambda _: False) == ""


def test_files_that_are_named_are_there() -> None:
    # Of Python all text: messages tell operators what to read. Of pages all text too, commands included.
    named = sum(len(FILE.findall(source.text)) for source in all_sources())
    assert named > 50
    assert dead(lambda source: FILE.findall(source.text), lambda path: (ROOT / path).exists()) == ""


def test_folders_that_pages_name_are_there() -> None:
    assert sum(len(FOLDER.findall(page.prose)) for page in all_pages()) >= 10
    assert dead(lambda page: FOLDER.findall(page.prose), lambda path: (ROOT / path).exists(), of=".md") == ""


def test_links_between_pages_lead_to_a_page_and_to_a_heading_of_it() -> None:
    assert sum(len(LINK.findall(page.prose)) for page in all_pages()) >= 10
    assert dead(lambda page: broken_links(ROOT / page.name, page.text), lambda _: False, of=".md") == ""


def test_tests_that_pages_name_are_there() -> None:
    # In whatever file: tests may move, and are found by their name.
    code = "".join(source.text for source in all_sources() if source.name.startswith("tests/"))
    defined = set(re.findall(r"def (test_\w+)\(", code))
    assert sum(len(TEST.findall(page.prose)) for page in all_pages()) >= 10
    assert dead(lambda page: TEST.findall(page.prose), defined.__contains__, of=".md") == ""


def test_mutations_that_pages_name_are_there() -> None:
    strings = ast.walk(ast.parse(MUTATIONS.read_text(encoding="utf-8")))
    known = {node.value for node in strings if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert sum(len(mutations_cited(page.prose)) for page in all_pages()) >= 20
    assert dead(lambda page: mutations_cited(page.prose), known.__contains__, of=".md") == ""


# --- the reading of citations


@pytest.mark.parametrize(
    ("prose", "cited"),
    [
        ("As it says (design.md, 5.4).", ["5.4"]),
        ("(docs/design.md, 3 and 4):", ["3", "4"]),
        ("design.md, sections 4 and 5.", ["4", "5"]),
        ("see design.md 4: all of it", ["4"]),
        ("`docs/design.md`, 5.2 to 5.4", ["5.2", "5.4"]),
        ("(design.md, take-over)", ["take-over"]),
        ("(docs/design.md, Refusals and topics): only a record", ["refusals and topics"]),
        ("the design is in docs/design.md.", []),
        ("[design.md](design.md) states the rules", []),
        ("([design.md](design.md#5-firing), section 5)", ["5"]),
        ("my-design.md, 4", []),
    ],
)
def test_a_section_is_cited_by_number_or_by_heading(prose: str, cited: list[str]) -> None:
    assert sections_cited(prose) == cited


def test_a_page_has_sections_by_number_and_by_heading() -> None:
    page = "# Page\n\n## 3. Data\n\n#### 5.4 Holds †\n\n### Take-over †\n\n```\n# no heading\n```\n"
    assert sections_of(page) == {"page", "3", "data", "5.4", "holds", "take-over"}


@pytest.mark.parametrize(
    ("prose", "cited"),
    [
        ("a row that is gone (x-delete-first).", ["x-delete-first"]),
        ("(docs/protocol.md: x-lane, x-move-order)", ["x-lane", "x-move-order"]),
        ("passes (s-seq), but xe-nocheck does not", ["s-seq", "xe-nocheck"]),
        ('<a id="x-far"></a>x-far', ["x-far"]),
        ("an `x-amz-date`, nodes-here, max-x-far, the node's-own, /x-far, x-*", []),
    ],
)
def test_a_case_is_cited_by_its_label(prose: str, cited: list[str]) -> None:
    assert labels_cited(prose) == cited


def test_of_python_the_comments_and_docstrings_are_read_and_no_other_string() -> None:
    code = '"""A docstring."""\nX = "x-amz-date"\n"""Of an attribute."""\ndef f() -> None:  # a comment\n    """Inner."""\n'
    prose = prose_of_python(code)
    assert all(words in prose for words in ("A docstring.", "Of an attribute.", "a comment", "Inner."))
    assert "x-amz-date" not in prose


def test_a_citation_may_be_broken_between_two_lines() -> None:
    assert sections_cited(in_one_line("of its hold (design.md,\n    sections 4\nand 5).")) == ["4", "5"]
    assert sections_cited(in_one_line("> (design.md,\n> 4)")) == ["4"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("see infra/migration.md.", ["infra/migration.md"]),
        ("grant it as infra/iam/node.json says", ["infra/iam/node.json"]),
        ("(tests/simulation/test_scripted.py)", ["tests/simulation/test_scripted.py"]),
        ("../docs/x.md, /docs/page.js, infra/grafana, tests/{unit,real}/x.py, infra/*.yaml", []),
    ],
)
def test_a_file_is_named_by_its_path_from_the_root(text: str, named: list[str]) -> None:
    assert FILE.findall(text) == named


def test_a_link_is_followed_to_its_file_and_its_heading(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text('## The life of it: †\n\n<a id="x-far"></a>', encoding="utf-8")
    page = tmp_path / "page.md"
    text = """# Here
    [a](other.md) [b](other.md#the-life-of-it-) [c](other.md#x-far) [d](#here) [e](https://example.org/none)
    [f](none.md) [g](other.md#none) [h](#none)
    """
    page.write_text(text, encoding="utf-8")
    assert broken_links(page, text) == ["none.md", "other.md#none", "#none"]


def test_mutations_are_named_one_by_one_or_in_a_list() -> None:
    assert mutations_cited("mutations `a b`, `c`; `test_d`") == ["a b", "c"]
    assert mutations_cited("mutation `a` | x") == ["a"]
    assert mutations_cited("the file `mutations.py`") == []
