"""Ports that no other process is given before a service takes them, or while it is down.

The usual way, to bind port 0 and let go of it again, hands out ports of the ephemeral range, from which the kernel also
serves every outgoing connection. While a service is down in a fault test its clients reconnect all the time,
and sooner or later one gets the very port it dials as its own: it talks to itself, and the service cannot come back.
Below that range (it begins at 32768 on Linux, at 49152 on macOS) the kernel gives away no port unasked.
"""

import secrets
import socket

PORTS = range(20_000, 32_000)
ATTEMPTS_MAX = 100


def is_free(port: int) -> bool:
    """True if a server could listen on this port, on every interface, at this moment."""
    with socket.socket() as probe:
        # As Java does: else the closed connections of a service's last run would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port that is free now. It may be taken before its use, so the caller tries again. Raises: OSError."""
    for _ in range(ATTEMPTS_MAX):
        # Not `random`: test tools seed it, and two runs side by side would draw the same ports.
        port = secrets.choice(PORTS)
        if is_free(port):
            return port
    raise OSError(f"found no free port among {ATTEMPTS_MAX} tried between {PORTS.start} and {PORTS.stop}")
