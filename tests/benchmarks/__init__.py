"""Speed, measured and printed; nothing here asserts a figure.

.venv/bin/python -m tests.benchmarks.main_job      lateness at 100/s, drain of 20,000, take-over after kill -9
"""
