"""How often one caller may call, and how many streams it may hold open.

Rules: counted in this process without waiting for anybody, and added up in Redis (`rates`); without
Redis each gateway goes on by its own count. A refused call counts for nothing.

May not enter: what an account may spend or order (`herder.accounts`).
"""
