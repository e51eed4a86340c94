"""The message interface of the original: tags in, orders and payments out, answers into inboxes.

Rules: a message is answered once, in the transaction that does what it asks; `tags` alone says what
a message may hold. Orders and quotes are handed in, not imported: orders that end write to inboxes.

May not enter: HTTP; the steps of an order.
"""
