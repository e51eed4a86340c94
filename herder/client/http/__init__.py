"""The herd as a program elsewhere sees it: its gateway, over HTTP.

`calls` is pure: what is sent, and what comes back; `remote_herd` and `async_client` carry it.
`ends` notices the ends of orders for callbacks.

Rules: a call that is sent again is still one order; both clients share every rule (`retrying`).

May not enter: what the client is installed without; anything of the herder's side.
"""
