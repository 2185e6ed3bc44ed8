"""A process that runs one command, and ends it when its own parent is gone.

Run as a script: `python -I -S keeper.py SCRATCH USER COMMAND...`. A parent that is killed with SIGKILL cannot clean
up after itself, so another process must notice. Its children could ask the kernel for a signal (PDEATHSIG), but
only on Linux, and that signal comes when the *thread* that forked ends, not the process. A pipe works everywhere:
the parent holds the only writing end, and the kernel closes it whatever the parent dies of.

    parent writes a signal's name and a newline   → the command gets that signal; SIGSTOP, SIGCONT, SIGKILL: its
                                                    children too
    the pipe closes                               → the command is killed, SCRATCH (if not empty) removed
    the command ends                              → the keeper ends with the same code (128 + n for signal n)

The signals go through the keeper because only a process's parent can be sure that a pid is still that process.
With USER (a number) the command runs as that user, and the keeper does not: it may signal it and read itself.
The parent starts the keeper in a session of its own, so Ctrl-C in the terminal reaches the parent alone, which
can then stop the services in its order.

Nothing of the project is imported here: a keeper must be up in milliseconds and small.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Command(Protocol):
        """A running command, which is a child of this process."""

        @property
        def pid(self) -> int: ...

        def send_signal(self, sig: int) -> None:
            """Sends a signal; does nothing once the command has ended."""


SIGNAL_NAME_BYTES_MAX = 64
PR_SET_PDEATHSIG = 1


def dying_with_parent() -> Callable[[], object]:
    """A function for a child of this process that asks the kernel to kill it should this process itself be killed. Only
    Linux can do it.

    Sound here and not in the parent: the keeper forks from its only thread, before it starts another.
    """
    # Loaded before the fork: another user may not be able to read Python's own files.
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def send(command: "Command", number: signal.Signals) -> None:
    """Signals the command; to stop, go on and die also its children: a server of several processes is frozen, or dead as
    after a power cut, only with all of them."""
    if number not in (signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL):
        command.send_signal(number)
        return
    # Stopped first: it makes no more children meanwhile, and does not take note of the end of one, whose number could
    # then be another process's.
    command.send_signal(signal.SIGSTOP)
    children = _children(command.pid)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    command.send_signal(number)


def _children(of: int) -> list[int]:
    """The processes whose parent this is."""
    if not os.path.exists("/proc/self/stat"):
        # Not Linux, which has no `ps` everywhere.
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, check=False).stdout
        return [int(pid) for pid, parent in (line.split() for line in listed.splitlines()) if int(parent) == of]
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            # "pid (name) state parent …", and the name may hold anything.
            if int(file.read().rpartition(b")")[2].split()[1]) == of:
                found.append(int(name))
    return found


def _relay(command: subprocess.Popen[bytes], scratch: str, abandoned: threading.Event) -> None:
    """Passes signals on until the pipe closes, then cleans up. Runs in a thread; the main one waits for the command."""
    buffered = b""
    # os.read, not sys.stdin: a thread blocked in a buffered reader aborts the interpreter's shutdown.
    while chunk := os.read(0, SIGNAL_NAME_BYTES_MAX):
        *names, buffered = (buffered + chunk).split(b"\n")
        for name in names:
            send(command, signal.Signals[name.decode()])
    abandoned.set()
    send(command, signal.SIGKILL)
    command.wait()
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)


def main(scratch: str, user: str, argv: list[str]) -> None:
    """Runs the command to its end, and ends with its exit code."""
    number = int(user) if user else None
    command = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        user=number,
        group=number,
        extra_groups=None if number is None else [],
        # It runs after the change of the user, which takes such a request back.
        preexec_fn=dying_with_parent() if sys.platform == "linux" else None,
    )
    for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A signal to the keeper is meant for the command.
        signal.signal(ending, lambda *_: command.kill())
    abandoned = threading.Event()
    relay = threading.Thread(target=_relay, args=(command, scratch, abandoned), name="relay", daemon=True)
    relay.start()
    code = command.wait()
    if abandoned.is_set():
        relay.join()
    # Not the interpreter's own end: it could wait for the relay, which may be blocked in its read for ever.
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
