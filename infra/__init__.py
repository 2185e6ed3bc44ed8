"""Surroundings of Clockwork: local services, image, chart, rights, dashboards, alerts, planning."""
