"""Prices and places of orders: rates, policy, quotes, ranks made anew, the length of the queue.

Rules: nothing prices or ranks from the environment: rates and policy stand in the database. Quotes
only read. Ranks of two kinds are never compared (`ranking`).

May not enter: anything that takes or ends an order.
"""
