"""A cluster of its own for each test that breaks something; one for all that do not."""

from tests.support.node_fixtures import cluster, kind, launch, module_node, shared, shared_node, tell

__all__ = ["cluster", "kind", "launch", "module_node", "shared", "shared_node", "tell"]
