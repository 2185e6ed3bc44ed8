"""The tests. Each folder is a package, so that two test modules may share a name."""
