"""Nodes as forks of a process that has imported the service already.

    tests ──socket: module, arguments, environment──► template ──fork──► node
      ├─────pipe: signals, as to a keeper───────────►    │
      ◄─────────────────────────pipe: exit code──────────┘

A third of the CPU time of the tests with real services was spent on imports, again for each node. The template imports what
a node needs, opens nothing and starts no thread; a fork of it runs the module as `python -m` does, in a session of its own.
All nodes of one test session share the seed of hashes, which `python -m` draws for each process.

The template is the parent of all nodes, so it may signal them: it kills a node whose pipe closes; and once the socket
closes, because the tests' process has ended, it kills all of them and ends.
"""

import asyncio
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from infra.local import keeper
from infra.local.child import Child
from infra.local.node import REPOSITORY
from tests.support.kafka_partitions import FEW

PROGRAM: Final = f"import sys; from {__name__} import main; main(sys.argv[1:])"
"""The template's, started from the repository."""
NODE: Final = "clockwork.__main__"
IMPORTS: Final = (
    NODE,
    "clockwork.node.app",
    "clockwork.stores.dynamodb.opening",
    "clockwork.stores.postgres.opening",
)
END_S_MAX: Final = 10.0
KILLED_CODE: Final = 128 + signal.SIGKILL
SIGNALS_BYTES_MAX: Final = 64
_LENGTH: Final = struct.Struct(">I")


# --- in the process of the tests


class Template:
    """Starts nodes, each as a fork of one process, which is started for the first of them. A block ends that process."""

    def __init__(self, imports: Sequence[str] = IMPORTS) -> None:
        """`imports`: the modules that the process imports, once for all forks."""
        self._imports = imports
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> "Template":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._socket is not None:
            self._socket.close()
            self._process.wait(END_S_MAX)

    async def launch(
        self, command: list[str], *, log_path: Path | None, cwd: Path, env: Mapping[str, str] | None
    ) -> Child:
        """Starts `python -m module argument…`, as `Child.start` would; another command, or one that writes to the output of
        this process, it starts by that."""
        if command[:2] != [sys.executable, "-m"] or log_path is None:
            return await Child.start(command, log_path=log_path, cwd=cwd, env=env)
        signals, signal_writer = os.pipe()
        code_reader, code = os.pipe()
        request = {"module": command[2], "arguments": command[3:], "cwd": str(cwd), "env": dict(env or os.environ)}
        body = json.dumps(request).encode()
        try:
            with log_path.open("ab") as log:
                there = self._opened()
                assert self._process is not None
                socket.send_fds(there, [_LENGTH.pack(len(body))], [signals, code, log.fileno()])
                there.sendall(body)
        finally:
            os.close(signals)
            os.close(code)
        return Child(_Ending(self._process.pid, code_reader), signal_writer)

    def _opened(self) -> socket.socket:
        if self._socket is None:
            self._socket, there = socket.socketpair()
            with there:
                command = [sys.executable, "-c", PROGRAM, *self._imports]
                self._process = subprocess.Popen(command, stdin=there.fileno(), cwd=REPOSITORY, start_new_session=True)
        return self._socket


class _Ending:
    """The end of a node, as the template with this pid reports it; see `infra.local.child.Keeper`."""

    def __init__(self, pid: int, code_reader: int) -> None:
        self.pid = pid
        self._reader = code_reader
        self._ended = asyncio.Event()
        self.returncode: int | None = None
        asyncio.get_running_loop().add_reader(code_reader, self._read)

    def _read(self) -> None:
        asyncio.get_running_loop().remove_reader(self._reader)
        # Nothing: the template was killed, and its nodes with it.
        self.returncode = int(os.read(self._reader, SIGNALS_BYTES_MAX) or KILLED_CODE)
        os.close(self._reader)
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode


# --- in the process of the template


class _Node:
    """A fork that runs."""

    def __init__(self, pid: int, signals: int, code: int) -> None:
        self.pid = pid
        self.signals = signals
        self._code = code

    def send_signal(self, sig: int) -> None:
        """See `keeper.Command`: the process stays in the table of processes until it is reaped here."""
        os.kill(self.pid, sig)

    def ended(self, code: int) -> None:
        # The process of the tests may have ended.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._code, str(code if code >= 0 else 128 - code).encode())
        os.close(self._code)


class _Server:
    """Forks on request, passes signals on and reports exit codes."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._nodes: dict[int, _Node] = {}
        self._selector = selectors.DefaultSelector()
        self._die_with_parent = keeper.dying_with_parent() if sys.platform == "linux" else lambda: None
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)

    def serve(self) -> dict[str, Any] | None:
        """Serves until the socket closes; then returns None. In a fork returns the request at once."""
        signal.set_wakeup_fd(self._wake_writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._requests, selectors.EVENT_READ)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._requests:
                    header, passed, *_ = socket.recv_fds(self._requests, _LENGTH.size, 3)
                    if not header:
                        self._kill_all()
                        return None
                    request = self._request(*_LENGTH.unpack(header))
                    if self._forks(*passed):
                        return request
                elif key.fileobj == self._wake_reader:
                    os.read(self._wake_reader, 4_096)
                    self._reap()
                elif isinstance(key.data, _Node):
                    self._pass_on(key.data)

    def _request(self, length: int) -> dict[str, Any]:
        body = b""
        while len(body) < length and (more := self._requests.recv(length - len(body))):
            body += more
        request: dict[str, Any] = json.loads(body)
        return request

    def _forks(self, signals: int, code: int, log: int) -> bool:
        """True in the fork."""
        pid = os.fork()
        if pid:
            os.close(log)
            node = self._nodes[pid] = _Node(pid, signals, code)
            self._selector.register(signals, selectors.EVENT_READ, node)
            return False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._die_with_parent()
        os.setsid()
        # Objects close the files that they own: later they would close other files that have got the same numbers.
        self._selector.close()
        self._requests.close()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for here, there in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(here, there)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        return True

    def _pass_on(self, node: _Node) -> None:
        if node.pid not in self._nodes:
            return  # reaped a moment ago
        names = os.read(node.signals, SIGNALS_BYTES_MAX).decode().split()
        if not names:
            self._selector.unregister(node.signals)
        for name in names or ["SIGKILL"]:
            keeper.send(node, signal.Signals[name])

    def _reap(self) -> None:
        while self._nodes:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            node = self._nodes.pop(pid)
            node.ended(os.waitstatus_to_exitcode(status))
            with contextlib.suppress(KeyError):
                self._selector.unregister(node.signals)
            os.close(node.signals)

    def _kill_all(self) -> None:
        for node in self._nodes.values():
            keeper.send(node, signal.SIGKILL)


def _become(request: Mapping[str, Any]) -> None:
    """Runs the module as `python -m` does."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def _import_all(names: Sequence[str]) -> None:
    for name in names:
        importlib.import_module(name)
    # It is to be run, and a module that is run must not have been imported.
    sys.modules.pop(NODE, None)
    if (topics := sys.modules.get("clockwork.kafka.topics")) is not None:
        # Nodes that are no forks make as many as in production.
        vars(topics).update(FEW)
    gc.collect()
    gc.freeze()


def main(imports: Sequence[str]) -> None:
    """Is the template; in a fork, the module that was asked for."""
    _import_all(imports)
    if (asked := _Server(socket.socket(fileno=os.dup(0))).serve()) is not None:
        _become(asked)
