"""The herd as a program elsewhere sees it: its gateway, over HTTP.

`calls` (what is sent) and `answers` (what comes back) are pure; `remote_herd`, over `connection`,
and `async_client` carry them. `bounds` and `sse` read what a server sends, as much as a gateway may
send; `ends` notices the ends of orders for callbacks.

Rules: a call that is sent again is still one order; both clients share every rule (`retrying`).

May not enter: what the client is installed without; anything of the herder's side.
"""
