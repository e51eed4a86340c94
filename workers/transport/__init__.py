"""The parts of Celery and Redis that herder and workers share.

`settings` (where they are), `config` (Celery's settings for each broker), `guard` (the consumer
that refuses what is not ours), `sender`, `streams` (Redis beside Celery), `logs`, `loops` (threads
and tasks in the background). Importing the package loads none of them. `../wire.py` says what the
messages are; here is how they travel.

May not enter: what an order or a model is; anything of `workers` but `wire`.
"""
