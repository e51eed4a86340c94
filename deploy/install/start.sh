#!/bin/sh
# Starts the installer with the first Python that is new enough: $PYTHON if it is set, and no other;
# else python3.13, python3.12, python3.11, python3. Arguments go to `python -m deploy.install`.
cd "${0%/*}/../.." || exit 1

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

if [ -n "$PYTHON" ]; then
    new_enough "$PYTHON" && exec "$PYTHON" -m deploy.install "$@"
    echo "PYTHON=$PYTHON is not a Python 3.11 or later." >&2
    exit 1
fi
for python in python3.13 python3.12 python3.11 python3; do
    # Tried, not only found: a name on PATH may stand for a Python that is not there.
    new_enough "$python" && exec "$python" -m deploy.install "$@"
done
echo "Python 3.11 or later is needed. Install it (Debian, Ubuntu: sudo apt-get install -y python3 python3-venv)," >&2
echo "or name one: make PYTHON=/path/to/python3.12 ..." >&2
exit 1
