"""The life of an order: taken, dispatched, settled, cancelled, expired, read, forgotten.

Rules: whatever moves its money is in `intake` or `closing`, in one transaction with the order's own
step; `closing` alone resolves a hold for good. What is published was committed first.

May not enter: SQL (`herder.store`), prices (`herder.market`), HTTP, Celery.
"""
