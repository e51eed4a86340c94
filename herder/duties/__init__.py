"""Background duties, each with a name, a period and limits of its own.

Rules: a step does one bounded batch and says whether there is more; a row that cannot be done is
set aside and stops nobody else. What only one herder may do at a time stands behind a guard
(`records`).

May not enter: what a duty does; that stands with its subject (`herder.accounts`, `herder.orders`).
"""
