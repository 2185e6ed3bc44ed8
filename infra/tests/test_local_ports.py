"""Ports for the local services: free, and outside the range that the kernel gives away."""

import socket
from collections.abc import Iterator

import pytest

from infra.local.ports import PORTS, free_port, is_free

EPHEMERAL_FROM = 32_768
"""On Linux; macOS begins later."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_port_with_a_listener_is_not_free(listener: socket.socket) -> None:
    assert not is_free(listener.getsockname()[1])


def test_a_port_is_free_again_as_soon_as_its_server_is_gone(listener: socket.socket) -> None:
    # A connection that the server closed first stays in TIME_WAIT for a minute, which must not count.
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as client:
        accepted, _ = listener.accept()
        accepted.close()
        assert client.recv(1) == b""
    listener.close()

    assert is_free(port)


def test_free_ports_lie_below_those_the_kernel_gives_to_outgoing_connections() -> None:
    assert PORTS.stop <= EPHEMERAL_FROM
    assert all(free_port() in PORTS for _ in range(20))
