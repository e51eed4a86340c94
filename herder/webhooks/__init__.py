"""Webhooks: accounts are told by HTTP, at addresses of theirs, what became of their orders.

By the Standard Webhooks specification (https://www.standardwebhooks.com). What is to be told is
written in the transaction in which it happens (`events`), and sent by any herder, as often as it
takes (`deliverer`). An account's own programs manage its endpoints (`endpoints`).

May not enter: what an order's end is (`herder.orders`), routes.
"""
