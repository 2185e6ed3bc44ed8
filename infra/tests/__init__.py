"""Tests of what stands around the service: local services, image, charts, rights, dashboards, planning."""
