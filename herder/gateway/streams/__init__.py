"""Answers that last: waiting for an order's end, and text as server-sent events.

Rules: everything that waits for a caller ends; what happens when a reader goes away is decided in
`event_stream`, once.

May not enter: routes, shapes of bodies.
"""
