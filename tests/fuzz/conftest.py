"""Nodes for the campaigns on real services."""

from tests.support.node_fixtures import session_node, shared, shared_node

__all__ = ["session_node", "shared", "shared_node"]
