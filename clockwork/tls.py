"""TLS contexts out of files, and certificates that are renewed under running connections.

Certificates live shorter every year, and whatever renews them (cert-manager, an agent, a person) writes files and tells
nobody. So the files are looked at every few seconds. New ones are first loaded into a context that nobody uses: while
somebody is half-way through replacing certificate and key they do not fit, and a live context would be left with one of
each. Handshakes from then on see the new certificate; connections that are open keep theirs. What signs the other side
(`…_TLS_CA`) is read once: a context can only be given more of it, never less, so that change takes a restart.
"""

import asyncio
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clockwork.errors import CannotStart

LOOK_INTERVAL_S: Final = 5.0
"""Between two looks at the files; renewals come days before the old certificate ends."""
HANDSHAKE_S_MAX: Final = 10.0
"""For a client of ours to finish its handshake; a silent one must not hold a connection for a minute."""

log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CertFiles:
    """A certificate with its chain, and its key: two PEM files, and the settings that named them."""

    cert: Path
    key: Path
    cert_setting: str
    key_setting: str

    def stamp(self) -> _Stamp:
        """Changes when a file does: replaced, rewritten, or linked to another one. Raises: OSError."""
        found = (path.stat() for path in (self.cert, self.key))
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in found)


def server_context(files: CertFiles) -> ssl.SSLContext:
    """For listening: TLS 1.2 and later, no client certificates. Raises: CannotStart."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load(context, files)
    return context


def client_context(*, ca: Path | None, ca_setting: str, own: CertFiles | None, check_hostname: bool) -> ssl.SSLContext:
    """For connecting: the other side is always verified. Raises: CannotStart."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise CannotStart(f"{ca_setting}: {ca} cannot be used: {_reason(error)}") from error
    context.check_hostname = check_hostname
    if own is not None:
        _load(context, own)
    return context


def _load(context: ssl.SSLContext, files: CertFiles) -> None:
    try:
        # With a password, or OpenSSL asks for that of an encrypted key on the terminal.
        context.load_cert_chain(files.cert, files.key, password="")
    except (OSError, ssl.SSLError) as error:
        names = f"{files.cert_setting}, {files.key_setting}"
        raise CannotStart(f"{names}: {files.cert} and {files.key} cannot be used: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "not in PEM format, or an encrypted key"
    return error.strerror or type(error).__name__


class CertWatch:
    """Loads certificates again when their files change. A change that cannot be used leaves the old one in place and is
    said once; it is tried again until it can."""

    def __init__(self, watched: Sequence[tuple[ssl.SSLContext, CertFiles]]) -> None:
        self._watched = [(context, files, files.stamp()) for context, files in watched]
        self._said: set[tuple[Path, _Stamp | None]] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            self.look()

    def look(self) -> None:
        """One look at every file."""
        self._watched = [
            (context, files, self._stamp_after(context, files, stamp)) for context, files, stamp in self._watched
        ]

    def _stamp_after(self, context: ssl.SSLContext, files: CertFiles, stamp: _Stamp) -> _Stamp:
        """What is loaded now."""
        found: _Stamp | None = None
        try:
            found = files.stamp()
            if found == stamp:
                return stamp
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files)
            _load(context, files)
        except (OSError, CannotStart) as error:
            if (files.cert, found) not in self._said:
                self._said.add((files.cert, found))
                log.error(
                    "A new certificate cannot be used; the old one stays",
                    extra={"event": "tls.reload_failed", "setting": files.cert_setting, "error": str(error)},
                )
            return stamp
        self._said.clear()
        log.info("A new certificate is used", extra={"event": "tls.reloaded", "setting": files.cert_setting})
        return found
