"""From other schedulers to this one, and from the format before to this one: see infra/migration.md.

__main__         python -m infra.migrate first | crontab | quartz

first            reads a row of the first Clockwork's `schedules` table; the table of fields
transfer         page by page: scan, create over the HTTP API, save the progress
first_command    its command

crontab          crontabs to jobs
quartz           Quartz's tables to jobs; quartz_tables reads them, java_data what Java serialized in them
jobs_toml        jobs to the file of `clockwork job apply`, and the report of what has no equal
jobs_command     their commands

old_kafka        the transactional ids and the markers of the format before
upgrade          python -m infra.migrate.upgrade
"""
