"""The parts of Celery and Redis that herder and workers share.

`settings` (where they are), `config` (Celery's settings for each broker), `guard` (the consumer
that refuses what is not ours), `broker` (which strange bytes do not end), `monitoring`
(Celery's events, sent by the loop alone), `tasks` and `sender`,
`streams` and `reading` (Redis beside Celery, and its texts under an event loop), `delivery` (what
readers of texts were given), `logs` and
`event_log` (events in one shape), `loops` (threads and tasks in the background), `app` (Celery's,
which its own variables do not reach), `command_line`, `options` and `launch` (how Celery was asked
to start a process, and what of it works here). Importing the package loads none of them.
`workers.wire` says what the messages are; here is how they travel.

May not enter: what an order or a model is; anything of `workers` but `wire`.
"""
