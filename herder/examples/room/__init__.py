"""A chat room over HTTP, which several programs can join: `herd room`. Knows nothing of a herd.

Rules: `rules` and `rooms` decide, `store` is all its SQL, `client` is what a program joins with.

May not enter: anything of a herd but how errors and apps are told and served.
"""
