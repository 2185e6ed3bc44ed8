"""The vendored files of the dashboard and of its tests, compared offline with what was noted when they were fetched."""

from pathlib import Path

import pytest

from infra.ui.vendor import FOLDERS, packages_of, with_components, wrong_files

LICENCES = {"MIT", "Apache-2.0", "MPL-2.0"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda each: each.parts[-3])
def test_vendored_files_are_those_that_were_fetched(folder: Path) -> None:
    assert wrong_files(folder) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda each: each.parts[-3])
def test_each_package_has_its_licence_beside_it(folder: Path) -> None:
    for package in packages_of(folder):
        assert package.licence in LICENCES
        assert package.integrity.startswith("sha512-")
        texts = [(folder / file.name).read_text() for file in package.files if "LICENSE" in file.name]
        assert texts
        assert all(text.strip() for text in texts)


def test_a_file_that_was_changed_or_added_by_hand_is_found(tmp_path: Path) -> None:
    source = FOLDERS[0]
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "htm.js").write_text("changed")
    (tmp_path / "new.js").write_text("")
    (tmp_path / "uplot.css").unlink()
    assert wrong_files(tmp_path) == [
        "htm.js is not the file that was vendored",
        "new.js is not named in VENDOR.toml",
        "uplot.css is missing",
    ]


def test_no_vendored_module_has_a_bare_import_that_a_browser_cannot_follow() -> None:
    for path in FOLDERS[0].glob("*.js"):
        assert 'from"preact"' not in path.read_text().replace(" ", "")


def test_the_pages_packages_are_added_to_the_list_of_what_a_node_is_made_of() -> None:
    document = with_components({"components": [{"name": "aiohttp"}]}, packages_of(FOLDERS[0]))
    assert [each["name"] for each in document["components"]] == ["aiohttp", "preact", "htm", "uplot"]
    for each in document["components"][1:]:
        assert each["purl"] == f"pkg:npm/{each['name']}@{each['version']}"
        assert len(each["hashes"][0]["content"]) == 128
