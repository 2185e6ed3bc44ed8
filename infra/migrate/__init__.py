"""From the first Clockwork to this one: see infra/migration.md.

first      reads a row of its `schedules` table; the table of fields
transfer   page by page: scan, create over the HTTP API, save the progress
__main__   python -m infra.migrate
"""
