"""Settings: read once, checked at start, passed on in slices."""
