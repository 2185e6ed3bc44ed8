"""TLS contexts out of files, and certificates that are renewed under running connections.

Renewals (by cert-manager, an agent, a person) write files without notice, so the files are checked every few seconds.
New files are first loaded into a spare context: in the middle of a replacement certificate and key do not match, and a
live context would be left with one of each. Later handshakes see the new certificate; open connections keep theirs. The
authorities (`…_TLS_CA`) are read once: a context can only be given more of them, never fewer, so that change takes a
restart.
"""

import asyncio
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clockwork.errors import CannotStart

CHECK_INTERVAL_S: Final = 5.0
"""Interval between two checks of the files; renewals come days before the old certificate ends."""
HANDSHAKE_S_MAX: Final = 10.0
"""Time for a client to finish its TLS handshake; a silent one must not hold a connection for a minute."""

log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CertFiles:
    """Two PEM files, a certificate with its chain and its key, and the settings that name them."""

    cert: Path
    key: Path
    cert_setting: str
    key_setting: str

    def stamp(self) -> _Stamp:
        """A value that changes with the files: replaced, rewritten, or linked to others. Raises: OSError."""
        found = (path.stat() for path in (self.cert, self.key))
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in found)


def server_context(files: CertFiles) -> ssl.SSLContext:
    """Context for a listener: TLS 1.2 and later, no client certificates. Raises: CannotStart."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load(context, files)
    return context


def client_context(*, ca: Path | None, ca_setting: str, own: CertFiles | None, check_hostname: bool) -> ssl.SSLContext:
    """Context for connections: the server is always verified. Raises: CannotStart."""
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
        # The password is empty: without one OpenSSL would ask for the password of an encrypted key on the terminal.
        context.load_cert_chain(files.cert, files.key, password="")
    except (OSError, ssl.SSLError) as error:
        names = f"{files.cert_setting}, {files.key_setting}"
        raise CannotStart(f"{names}: {files.cert} and {files.key} cannot be used: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "not in PEM format, or an encrypted key"
    return error.strerror or type(error).__name__


class CertWatch:
    """Reloads certificates when their files change. Files that cannot be used leave the old certificate in place, are logged
    once, and are tried again until they can."""

    def __init__(self, watched: Sequence[tuple[ssl.SSLContext, CertFiles]]) -> None:
        self._watched = [(context, files, files.stamp()) for context, files in watched]
        self._logged: set[tuple[Path, _Stamp | None]] = set()

    async def run(self) -> None:
        """Checks until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            self.check()

    def check(self) -> None:
        """Checks every file once."""
        self._watched = [
            (context, files, self._stamp_after(context, files, stamp)) for context, files, stamp in self._watched
        ]

    def _stamp_after(self, context: ssl.SSLContext, files: CertFiles, stamp: _Stamp) -> _Stamp:
        """The stamp of the files that are loaded now."""
        found: _Stamp | None = None
        try:
            found = files.stamp()
            if found == stamp:
                return stamp
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files)
            _load(context, files)
        except (OSError, CannotStart) as error:
            if (files.cert, found) not in self._logged:
                self._logged.add((files.cert, found))
                log.error(
                    "A new certificate cannot be used; the old one stays",
                    extra={"event": "tls.reload_failed", "setting": files.cert_setting, "error": str(error)},
                )
            return stamp
        self._logged.clear()
        log.info("A new certificate is used", extra={"event": "tls.reloaded", "setting": files.cert_setting})
        return found
