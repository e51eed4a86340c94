"""Limits on a caller's requests and open streams.

Rules: counted in this process without waiting for anybody, and added up in Redis (`rates`); without
Redis each gateway goes on by its own count. A refused call counts for nothing.

May not enter: what an account may spend or order (`herder.accounts`).
"""
