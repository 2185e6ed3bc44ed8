"""Nodes for the campaigns on real services."""

from tests.support.node_fixtures import cluster, kind, launch, module_node, shared, shared_node

__all__ = ["cluster", "kind", "launch", "module_node", "shared", "shared_node"]
