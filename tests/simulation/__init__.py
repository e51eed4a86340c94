"""The herd in one process: real herders under a simulated clock, broker, Redis and workers.

`python -m tests.simulation 1..300` runs seeds; CONTRIBUTING.md says what that shows.
"""
