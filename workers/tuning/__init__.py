"""Programs that try a model out: `herd worker check` and `herd worker tune` run them as children.

Rules: they print JSON and end; the choice among settings (`search`) is pure.

May not enter: anything that a worker at work needs.
"""
