"""Ports: contracts of everything outside the process. Each has a twin in memory, and one test suite runs on both.

Errors of every port: `Unavailable` and its subclasses when the other side does not answer in time (never an exception of a
client library); other errors as each method says. Every method may be cancelled; a cancelled write may have happened.
"""
