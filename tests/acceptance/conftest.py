"""A cluster of its own for each test."""

from tests.support.node_fixtures import cluster

__all__ = ["cluster"]
