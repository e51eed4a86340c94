"""A whole herd on one machine: the home folder, and the processes that `herd up` starts and ends.

Rules: `die_with_parent` is started by its path, with nothing of ours to import: it stays without
imports of ours. Keys and settings in the home folder are readable by their owner alone.

May not enter: rules about orders or money.
"""
