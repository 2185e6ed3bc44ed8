"""Requests about schedules, independent of the way they arrive."""
