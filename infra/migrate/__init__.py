"""From the first Clockwork to this one: see infra/migration.md.

first      what a row of its `schedules` table means here; the table of fields
carry      page by page: scan, create over the HTTP API, note how far it came
__main__   python -m infra.migrate
"""
