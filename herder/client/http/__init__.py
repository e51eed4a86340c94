"""The herd as a program elsewhere sees it: its gateway, over HTTP.

`calls` is pure: what is sent, and what comes back; `sync` and `aio` carry it.
"""
