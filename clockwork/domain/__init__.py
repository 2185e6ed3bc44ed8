"""The rules, pure: what is due, who owns it, what waits for what. No I/O, no clock, no randomness."""
