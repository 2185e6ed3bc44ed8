"""The adapters and the local services against the real thing."""
