"""The parts of the dashboard that are not our own code."""
