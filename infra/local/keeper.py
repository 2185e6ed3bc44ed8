"""A process that runs one command, and ends it when its own parent is gone.

Run as a script: `python -I -S keeper.py SCRATCH COMMAND...`. A parent that is killed with SIGKILL cannot clean
up after itself, so another process must notice. Its children could ask the kernel for a signal (PDEATHSIG), but
only on Linux, and that signal comes when the *thread* that forked ends, not the process. A pipe works everywhere:
the parent holds the only writing end, and the kernel closes it whatever the parent dies of.

    parent writes a signal's name and a newline   → the command gets that signal
    the pipe closes                               → the command is killed, SCRATCH (if not empty) removed
    the command ends                              → the keeper ends with the same code (128 + n for signal n)

The signals go through the keeper because only a process's parent can be sure that a pid is still that process.
The parent starts the keeper in a session of its own, so Ctrl-C in the terminal reaches the parent alone, which
can then stop the services in its order.

Nothing of the project is imported here: a keeper must be up in milliseconds and small.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading

SIGNAL_NAME_BYTES_MAX = 64
PR_SET_PDEATHSIG = 1


def _die_with_keeper() -> None:
    """Asks the kernel to kill the command should the keeper itself be killed. Only Linux can do it.

    Sound here and not in the parent: the keeper forks from its only thread, before it starts another.
    """
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _relay(command: subprocess.Popen[bytes], scratch: str, abandoned: threading.Event) -> None:
    """Passes signals on until the pipe closes, then cleans up. Runs in a thread; the main one waits for the command."""
    buffered = b""
    # os.read, not sys.stdin: a thread blocked in a buffered reader aborts the interpreter's shutdown.
    while chunk := os.read(0, SIGNAL_NAME_BYTES_MAX):
        *names, buffered = (buffered + chunk).split(b"\n")
        for name in names:
            command.send_signal(signal.Signals[name.decode()])
    abandoned.set()
    command.kill()
    command.wait()
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)


def main(scratch: str, argv: list[str]) -> None:
    """Runs the command to its end, and ends with its exit code."""
    command = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        preexec_fn=_die_with_keeper if sys.platform == "linux" else None,
    )
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # A signal to the keeper is meant for the command.
        signal.signal(number, lambda *_: command.kill())
    abandoned = threading.Event()
    relay = threading.Thread(target=_relay, args=(command, scratch, abandoned), name="relay", daemon=True)
    relay.start()
    code = command.wait()
    if abandoned.is_set():
        relay.join()
    # Not the interpreter's own end: it could wait for the relay, which may be blocked in its read for ever.
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
