"""One node: its parts put together, started, watched and stopped."""
