"""The stores of schedules, one folder each."""
