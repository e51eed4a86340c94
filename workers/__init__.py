"""The workers: one process, one model, many orders at once. See README.md in this folder.

Importing this package loads nothing: `celery -A workers` finds its app in `workers/celery.py`,
and the herder imports `workers.wire` and `workers.transport` alone.
"""
