"""Orders, their prices and what binds them: plain values and pure functions.

Rules: integers and fractions, no floats near money. No clock, id or randomness of its own: they are
passed in. What a caller says is parsed here once (`parsing`), and trusted from then on.

May not enter: SQL, Redis, Celery, settings, logging, files; a contract of import-linter refuses
what the client is installed without.
"""
