"""Prices and places of orders: rates, policy, quotes, the length of the queue.

Rules: nothing prices or ranks from the environment: rates and policy stand in the database. Quotes
and estimates only read.

May not enter: anything that takes or ends an order.
"""
