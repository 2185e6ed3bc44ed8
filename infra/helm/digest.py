"""`python -m infra.helm.digest`: one number of the chart, its examples and the stored rendering."""

import argparse
import hashlib
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
PARTS = ("clockwork/**/*", "examples/*.yaml", "rendered/*.yaml")


def digest() -> str:
    """SHA-256 of chart, examples and rendering, file by file, name and contents, in hexadecimal."""
    found = hashlib.sha256()
    for path in sorted(file for part in PARTS for file in FOLDER.glob(part)):
        if path.is_file():
            text = path.read_bytes()
            found.update(f"{path.relative_to(FOLDER).as_posix()} {len(text)}\n".encode() + text)
    return found.hexdigest()


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m infra.helm.digest", description=__doc__).parse_args()
    sys.stdout.write(f"{digest()}\n")
