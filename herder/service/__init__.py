"""A herder at work: its loop, its duties, and the Celery tasks that outcomes come in by.

Rules: tasks only hand over; one thread settles. Each duty has a name, a period and a bounded batch,
and one that fails stops no other.

May not enter: decisions about orders (`herder.orders`), SQL.
"""
