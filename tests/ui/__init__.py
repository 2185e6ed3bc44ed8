"""The dashboard in a real browser, on nodes of this process."""
