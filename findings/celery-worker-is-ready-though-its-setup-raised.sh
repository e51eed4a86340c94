#!/bin/sh
# A Celery 5.7.0 worker whose set-up raises says that it is ready, and takes tasks.
#
# What a receiver of `worker_process_init` raises is logged ("Signal handler ... raised"), and
# nothing else comes of it. What a receiver of `worker_init` raises is seen nowhere, at level INFO
# too: the signal is sent before the worker sets its logging up. In both cases the worker announces
# that it is ready, runs tasks without what the receiver was to set up, and ends with 0. Who
# prepares a model, a connection or a key there has to tell of a failure and to end the process
# himself.
#
# Seen: "worker_init: logged no, ready yes, task ran yes, exit 0"
#       "worker_process_init: logged yes, ready yes, task ran yes, exit 0"
# Run: sh celery-worker-is-ready-though-its-setup-raised.sh   (exit 0: as described; 1: changed)
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "celery==5.7.0"
cd "$folder"
cat > app.py <<'PYTHON'
import os
import signal

from celery import Celery, signals

app = Celery("app", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": "queue",
    "data_folder_out": "queue",
    "control_folder": "control",
}


def set_up(**_):
    raise RuntimeError("the model is not there")


getattr(signals, os.environ["WHICH"]).connect(set_up, weak=False)


@app.task
def work():
    open(os.environ["WHICH"], "w").close()
    # The task that was wanted has run: the worker may end.
    os.kill(int(open("pid").read()), signal.SIGTERM)
PYTHON
changed=0
for which in worker_init worker_process_init; do
    mkdir -p queue control
    export WHICH="$which"
    "$folder/venv/bin/python" -c 'import app; app.work.delay()'
    "$folder/venv/bin/celery" -A app worker -c 1 -l INFO --without-gossip --without-mingle \
        --without-heartbeat >"log-$which" 2>&1 &
    echo $! > pid
    worker=$!
    (sleep 120; kill -9 "$worker" 2>/dev/null) &
    guard=$!
    code=0
    wait "$worker" || code=$?
    kill "$guard" 2>/dev/null || true
    logged=no ready=no ran=no
    grep -q "the model is not there" "log-$which" && logged=yes
    grep -q " ready\." "log-$which" && ready=yes
    [ -e "$which" ] && ran=yes
    echo "$which: logged $logged, ready $ready, task ran $ran, exit $code"
    expected=yes
    [ "$which" = worker_init ] && expected=no
    [ "$logged $ready $ran $code" = "$expected yes yes 0" ] || changed=1
    rm -rf queue control pid
done
exit "$changed"
