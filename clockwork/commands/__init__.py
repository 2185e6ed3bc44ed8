"""Requests that arrive as records of the commands topic."""
