"""Programs to read and run.

Rules: each is read and run alone, and imports what any program may.

May not enter: anything that the rest of the herder needs.
"""
