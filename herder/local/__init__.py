"""A herd as a program beside it sees it: `herder.interface` on this machine's database.

Rules: wires the parts together and decides nothing. `callbacks` calls a program's own functions.

May not enter: SQL, Celery tasks, HTTP.
"""
