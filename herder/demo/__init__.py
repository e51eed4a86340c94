"""`herd demo` and `herd demo agents`: a whole herd on this machine, played through and shown.

Rules: the demos use what any program may use; `story` and `agents_story` say what happens, `screen`
and `agents_screen` show it.

May not enter: anything that the rest of the herder needs; nothing but the command imports it.
"""
