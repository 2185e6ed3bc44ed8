"""The pure rules and single parts: no network, no waiting, no processes."""
