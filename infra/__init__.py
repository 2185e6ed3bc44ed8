"""What Clockwork runs on: the services around it, on a developer's machine and in tests."""
