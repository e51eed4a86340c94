"""All SQL of the herder, by subject: models, orders, the book, the herd.

Every function takes the caller's connection and commits nothing. What is decided, is decided
elsewhere; here it is written down, in as few statements as it takes.

May not enter: decisions, clocks, a transaction of its own.
"""
