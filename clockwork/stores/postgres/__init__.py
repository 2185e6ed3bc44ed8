"""The store on PostgreSQL, 15 or later, by asyncpg."""
