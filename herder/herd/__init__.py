"""The workers as the herder knows them: what they announce, which attempts they hold, their keys.

Rules: a message counts if it is signed by a key that the database trusts (`trusted_keys`). Leases
run on the listening clock: time in which no herder listened ends nobody's lease.

May not enter: money; an order that ends is `herder.orders`' to end.
"""
