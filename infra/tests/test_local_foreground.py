"""`python -m infra.local` ends its services however it ends itself, and says why when it must.

Python stands in for Java here: the command, its signals and its keepers are real. `test_local_services.py` has the same
with the real services, once in order and once killed.
"""

import signal
from pathlib import Path

import pytest

from infra.tests.foreground import foreground, names, start

pytestmark = pytest.mark.processes

STAND_INS = "infra.tests.stand_ins"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_the_command_leaves_nothing_behind_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    async with foreground(tmp_path, module=STAND_INS) as command:
        assert set(command.lines) == {"KAFKA_BROKERS", "DYNAMODB_ENDPOINT"}
        assert len(command.servers) == 2
        assert names(tmp_path) != []

        command.process.send_signal(number)

        code, said = await command.end()
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        assert said == ""
        assert await command.all_gone()
    assert names(tmp_path) == []


async def test_the_command_ends_with_a_reason_when_a_service_dies(tmp_path: Path) -> None:
    async with foreground(tmp_path, module=STAND_INS) as command:
        command.servers[0].kill()

        code, said = await command.end()
        assert code == 1
        assert "ran out of memory or was killed" in said
        assert await command.all_gone()


async def test_without_a_network_the_first_start_names_what_it_needs_it_for(tmp_path: Path) -> None:
    # A proxy address without a listener stands for the missing network.
    proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9")
    places = {"CLOCKWORK_LOCAL_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    process = await start("infra.local", environment={**places, "NO_PROXY": "", "no_proxy": "", **proxies})
    _, said = await process.communicate()

    assert process.returncode == 1
    assert b"the first start needs Maven Central once" in said
    assert b"Traceback" not in said
    assert names(tmp_path / "cache") == ["lock"]
