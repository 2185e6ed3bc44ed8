"""What the dashboard is made of, besides our own code."""
