"""Errors of the local services, one class per thing that the reader can do about it.

    LocalServicesError
    ├── UnsupportedPlatform   use another machine, or infra/compose.yaml
    ├── PackagesMissing       install the extra
    ├── JarsUnavailable       connect to the network once
    ├── PortTaken             choose another port
    ├── OutOfMemory           free some memory
    ├── ServiceDied           read the log
    └── StartTimedOut         read the log, or try on a quieter machine

Every message is complete on its own: `python -m infra.local` prints it and nothing else.
"""


class LocalServicesError(Exception):
    """The local services cannot run; the message says why and what to do."""


class UnsupportedPlatform(LocalServicesError):
    """This operating system or processor lacks something that the services need."""


class PackagesMissing(LocalServicesError):
    """The optional packages of the `local` extra are not installed."""


class JarsUnavailable(LocalServicesError):
    """The jars are not in the cache and could not be fetched."""


class PortTaken(LocalServicesError):
    """Another process listens on the port that a service was to have."""


class OutOfMemory(LocalServicesError):
    """The machine, or the Java heap, has too little memory for the service."""


class ServiceDied(LocalServicesError):
    """A service's process ended by itself, for none of the reasons above."""


class StartTimedOut(LocalServicesError):
    """A service's process runs, but did not answer in time."""
