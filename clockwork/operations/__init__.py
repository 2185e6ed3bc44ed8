"""Calls of operators: pauses, shards, dead letters, pending schedules."""
