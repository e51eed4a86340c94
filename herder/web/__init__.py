"""HTTP for any app of ours: serving, uvicorn's protocol, the one form of refusals.

Rules: knows no route and no herd; numbers are passed in. A refusal is `herder.errors`' sentence,
code and data; an exception of Python's never reaches a caller.

May not enter: anything of the gateway's or the room's own.
"""
