"""The life of an order: taken, dispatched, settled, cancelled, expired, set aside, read, forgotten.

Rules: whatever moves its money is in `intake`, `closing` or `set_aside` (an operator's decision),
in one transaction with the order's own step; `closing` alone resolves a hold for good. Many orders
end in pieces, and one that cannot end is set aside and stops nobody else (`closer`). What is
published was committed first.

May not enter: SQL (`herder.store`), prices (`herder.market`), HTTP, Celery.
"""
