"""Grafana dashboards, written down once in Python; the JSON beside it is what Grafana reads."""
