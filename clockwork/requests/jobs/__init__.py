"""Everything that a caller can ask about recurring jobs, for every front door."""
