"""Fetches the packages that the dashboard is made of, as its `VENDOR.toml` names them: `python -m infra.ui.vendor`.

Each package is fetched as a tarball by npm, the registry's ordinary client, and compared with the integrity that is written
down; then the named files are copied, with two changes that a browser without a build step needs: the one bare import
(`"preact"`) becomes a relative one, and the comment that names a source map, which is not there, is left out. What lies in
the repository afterwards is compared with its SHA-256 by `wrong_files`, offline, by a test.

A new version: change `version` and `integrity` (`npm view NAME@VERSION dist.integrity`), run this with `--write`, which
writes the hashes of the files anew, and look at the difference.

`--audit` asks the registry for known vulnerabilities of these versions (`make audit`); `--sbom FILE` adds those of the page
to a CycloneDX list (`make sbom`).
"""

import argparse
import base64
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = (ROOT / "clockwork/ui/vendor", ROOT / "tests/ui/vendor")
"""The page's packages, which every node has, and those of its tests."""
MANIFEST: Final = "VENDOR.toml"
_SOURCE_MAP: Final = re.compile(rb"\n?//# sourceMappingURL=\S+\s*$")
_BARE: Final = re.compile(rb'from\s*"preact"')


class NotTheSame(Exception):
    """A package is not what its integrity says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VendoredFile:
    """A file that was taken out of a package."""

    source: str
    """Its path in the package."""
    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A package of the npm registry."""

    name: str
    version: str
    licence: str
    """SPDX."""
    integrity: str
    """Hash of its tarball, as the registry gives it: `sha512-` and base64."""
    files: tuple[VendoredFile, ...]


def packages_of(folder: Path) -> list[Package]:
    """The packages of a folder, as its manifest names them."""
    document: dict[str, Any] = tomllib.loads((folder / MANIFEST).read_text())
    return [
        Package(
            name=each["name"],
            version=each["version"],
            licence=each["licence"],
            integrity=each["integrity"],
            files=tuple(
                VendoredFile(source=file["source"], name=file["name"], sha256=file["sha256"]) for file in each["files"]
            ),
        )
        for each in document["packages"]
    ]


def wrong_files(folder: Path) -> list[str]:
    """Differences between a folder and its manifest: files that are missing, differ, or are not named. Those that
    end with `.d.ts` are ours: they lead the type checker to the declarations of the packages."""
    named = {file.name: file.sha256 for package in packages_of(folder) for file in package.files}
    there = {path.name for path in folder.iterdir() if path.name != MANIFEST and not path.name.endswith(".d.ts")}
    wrong = [f"{name} is missing" for name in named.keys() - there]
    wrong += [f"{name} is not named in {MANIFEST}" for name in there - named.keys()]
    wrong += [
        f"{name} is not the file that was vendored"
        for name in named.keys() & there
        if _sha256((folder / name).read_bytes()) != named[name]
    ]
    return sorted(wrong)


def fetched(package: Package) -> dict[str, bytes]:
    """The files of a package, by their names here. Raises: NotTheSame, and what npm raises."""
    with tempfile.TemporaryDirectory() as where:
        wanted = f"{package.name}@{package.version}"
        subprocess.run(["npm", "pack", "--silent", wanted], cwd=where, check=True, stdout=subprocess.DEVNULL)
        (tarball,) = Path(where).glob("*.tgz")
        content = tarball.read_bytes()
        found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
        if found != package.integrity:
            raise NotTheSame(f"{wanted} has the integrity {found}, not {package.integrity}")
        with tarfile.open(tarball) as files:
            return {file.name: _for_browsers(_read(files, f"package/{file.source}")) for file in package.files}


def _read(files: tarfile.TarFile, path: str) -> bytes:
    member = files.extractfile(path)
    if member is None:
        raise NotTheSame(f"{path} is no file")
    return member.read()


def _for_browsers(content: bytes) -> bytes:
    return _BARE.sub(b'from"./preact.js"', _SOURCE_MAP.sub(b"\n", content))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _vendor(folder: Path, *, write: bool) -> list[str]:
    manifest = folder / MANIFEST
    text = manifest.read_text()
    for package in packages_of(folder):
        files = fetched(package)
        for file in package.files:
            (folder / file.name).write_bytes(files[file.name])
            if write:
                text = text.replace(
                    f'name = "{file.name}", sha256 = "{file.sha256}"',
                    f'name = "{file.name}", sha256 = "{_sha256(files[file.name])}"',
                )
    manifest.write_text(text)
    return wrong_files(folder)


def audit() -> int:
    """Lets npm look for known vulnerabilities of the named versions. Returns its exit code."""
    wanted = {package.name: package.version for folder in FOLDERS for package in packages_of(folder)}
    with tempfile.TemporaryDirectory() as where:
        (Path(where) / "package.json").write_text(json.dumps({"private": True, "dependencies": wanted}))
        subprocess.run(["npm", "install", "--silent", "--package-lock-only"], cwd=where, check=True)
        return subprocess.run(["npm", "audit"], cwd=where, check=False).returncode


def with_components(document: dict[str, Any], packages: Sequence[Package]) -> dict[str, Any]:
    """A CycloneDX document with these packages added."""
    added = [
        {
            "type": "library",
            "bom-ref": f"pkg:npm/{package.name}@{package.version}",
            "name": package.name,
            "version": package.version,
            "purl": f"pkg:npm/{package.name}@{package.version}",
            "licenses": [{"license": {"id": package.licence}}],
            "hashes": [
                {"alg": "SHA-512", "content": base64.b64decode(package.integrity.removeprefix("sha512-")).hex()},
            ],
        }
        for package in packages
    ]
    return {**document, "components": [*document.get("components", []), *added]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch what the dashboard is made of.")
    parser.add_argument("--write", action="store_true", help="write the hashes of the files into VENDOR.toml")
    parser.add_argument("--audit", action="store_true", help="look for known vulnerabilities instead")
    parser.add_argument("--sbom", type=Path, help="add the page's packages to this list instead")
    arguments = parser.parse_args()
    if arguments.audit:
        sys.exit(audit())
    if arguments.sbom is not None:
        document = with_components(json.loads(arguments.sbom.read_text()), packages_of(FOLDERS[0]))
        arguments.sbom.write_text(json.dumps(document, indent=2) + "\n")
        return
    wrong = [f"{folder.name}: {each}" for folder in FOLDERS for each in _vendor(folder, write=arguments.write)]
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
