"""The store that the settings name is opened, or a line says what is missing for it."""

import sys

import pytest

from clockwork.clock import SystemClock
from clockwork.errors import CannotStart
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.sources import load_settings
from clockwork.stores import open_stores


def test_a_database_without_its_client_library_stops_the_start_with_a_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "asyncpg"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("clockwork.stores.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    # As Python finds it where the package is not installed.
    monkeypatch.setattr(sys, "meta_path", [_Hiding(), *sys.meta_path])
    settings = load_settings({"CLOCKWORK_STORE": "postgresql"})

    with pytest.raises(CannotStart, match=r"CLOCKWORK_STORE: .* pip install 'clockwork\[postgresql\]'"):
        open_stores(settings, clock=SystemClock(), observe=lambda **_: None, telemetry=NoTelemetry())


class _Hiding:
    """A finder that knows of no asyncpg."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "asyncpg":
            raise ModuleNotFoundError(f"No module named {name!r}", name="asyncpg")
