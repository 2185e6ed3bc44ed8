"""Nodes for the campaigns on real services."""

from tests.support.node_fixtures import cluster, kind, session_node, shared, shared_node

__all__ = ["cluster", "kind", "session_node", "shared", "shared_node"]
