"""The one thread that owns a model, and what it schedules: pure but for that thread.

Rules: one thread touches the model. What joins the next batch is decided in `scheduler`, without a
clock. A model is whatever has the interface in `work`; `stub` is the deterministic one.

May not enter: llama.cpp (`workers.llama`), Redis, Celery, what travels but for `workers.wire`.
"""
