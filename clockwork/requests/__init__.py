"""Everything that a caller can ask about schedules, for every front door: HTTP and the commands topic."""
