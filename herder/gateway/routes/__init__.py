"""The routes, one module for each kind of caller or subject.

Rules: a route parses shapes (`schemas`), asks `herder.local`, and shows.

May not enter: a rule about money, SQL, a table.
"""
