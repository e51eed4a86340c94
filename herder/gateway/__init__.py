"""HTTP: orders, accounts, and OpenAI's routes. Thin over `herder.local`: no rule lives here.

`herd gateway` serves it; any number may run on one herd. TLS is the proxy's work.

Rules: a route parses shapes, asks `herder.local`, and shows; what waits for a caller ends.

May not enter: a rule about money, SQL, a table.
"""
