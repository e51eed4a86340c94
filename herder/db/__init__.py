"""Opens the database: connections, transactions, tables and migrations, of SQLite and PostgreSQL.

Rules: every rule about connections and transactions stands here, and each of the two databases has
one module (`sqlite`, `postgres`). A table changes by a new migration, never by an old one.

May not enter: queries (they are in `herder.store`), decisions, anything about HTTP.
"""
