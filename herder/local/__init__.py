"""A herd as a program beside it sees it: `herder.interface` on this machine's database.

Rules: wires the parts together and decides nothing. `callbacks` calls a program's own functions; a
cancellation that an outage kept from being made is remembered (`cancellations`). Nothing writes to
standard output, which is the program's: events go through `workers.transport.event_log`.

May not enter: SQL, Celery tasks, HTTP.
"""
