"""From the first Clockwork to this one, and from the format before to this one: see infra/migration.md.

first      reads a row of the first Clockwork's `schedules` table; the table of fields
transfer   page by page: scan, create over the HTTP API, save the progress
__main__   python -m infra.migrate

old_kafka  the transactional ids and the markers of the format before
upgrade    python -m infra.migrate.upgrade

crontab    a crontab to the file of `clockwork job apply`
quartz     Quartz's tables to the same
jobs_toml  that file, written
"""
