"""The chart, and what it looks like rendered."""
