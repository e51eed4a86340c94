"""Flower for this herd.

    celery -A workers flower --conf=deploy/flowerconfig.py

Flower runs with the environment of any worker (HERD_REDIS_URL or HERD_BROKER_URL), on any machine
that reaches the broker; it needs no key and loads no model. It shows what workers send of their
own accord (HERD_EVENTS, on by default): the workers, and each attempt at an order with its
multiplier, tokens and order id. FAILURE is a failed attempt, with an error code; REVOKED one that
was cancelled, overdue, handed back or void, as `result` says; of what lapsed, the herder tells. No
prompt, no text and no traceback is in what they send.

Flower takes every name below that it knows as an option. What a command line says goes before.
"""

import os

# Who may look: `user:password`, several separated by commas. Without any, the pages are open to
# whoever reaches the address, and Flower keeps its /api shut.
basic_auth = [one for one in os.environ.get("HERD_FLOWER_BASIC_AUTH", "").split(",") if one]

# Loopback: /metrics and /healthcheck are open to everybody even with basic_auth. To show Flower to
# others, put a reverse proxy with TLS before it.
address = os.environ.get("HERD_FLOWER_ADDRESS", "127.0.0.1")
port = 5555

# Where the proxy serves it, such as `flower` for https://example.org/flower/; empty: at the root.
url_prefix = os.environ.get("HERD_FLOWER_URL_PREFIX", "")

# No buttons that stop workers or revoke tasks. They would do nothing here, since the workers take
# no remote control, which is unsigned: an order is stopped by its herder, who signs what it says.
read_only = True

# For the same reason Flower need not ask workers to send events, nor wait for their answers.
enable_events = False
inspect_timeout = 100.0

# `kwargs` is where multiplier, tokens and order id stand; `result` has status and tokens sampled;
# `exception` is the code of what failed, `lapsed` where its worker fell silent or did not claim it.
tasks_columns = "name,uuid,state,kwargs,result,exception,received,runtime,worker"

# Each takes about two kilobytes of memory; the database keeps them all, and `herd orders` shows
# them.
max_tasks = 10_000
max_workers = 1_000

# A worker instance that ended is not shown for ever, in seconds: its name will not come again.
purge_offline_workers = 3600

# Its state file would be a pickle: whoever can write it runs code as Flower's user. What is lost at
# a restart is a view of the last tasks, and nothing that anybody is paid for.
persistent = False
