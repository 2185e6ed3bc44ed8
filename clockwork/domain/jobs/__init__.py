"""A job: its state, and each step that changes it. Runs are rows of the schedules table (`domain/run.py`)."""
