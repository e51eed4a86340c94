"""Makes `.venv` and installs the project with all that it needs: `python3 -m deploy.install`.

Plain standard library, Python 3.11 or later: `start.sh` finds one and comes here. `__main__` reads
in the order of the work; the files, in that order, are

    debian          what the system must have
    environment     `.venv`, pip, and the stamp that says what was installed
    machine         the CPU's instruction sets and the compiler
    builds          which builds of llama-cpp-python to try, and each one's name
    shelf           the folder of built wheels that all checkouts share
    wheel           compiles, and settles on the first build that works
    trial, decode   whether one works: a child process decodes with it
    progress        what the person at the terminal sees meanwhile

and `servers`, a command of its own: PostgreSQL, PgBouncer, RabbitMQ and Chromium for the tests.

The one hard part is llama-cpp-python. It is compiled here, since what the compiler may use of the
CPU decides its speed, and some of what compilers make crashes when it decodes. So each build is
tried in a child process before it counts, and there is always a next one to fall back to.
"""
