"""Accounts by name over the ledger's: money in and out, statements, API keys, grants, usage.

Rules: whatever moves money does so in one transaction with what it is for; a refused call leaves no
trace. What an API key may spend, and what an account may order, is counted in the transaction that
holds the money (`api_keys`, `limits`).

May not enter: prices and ranks (`herder.market`), the steps of an order (`herder.orders`), HTTP.
"""
