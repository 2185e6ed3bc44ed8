"""One suite per port, run on its twin in memory and on the real service."""
