"""Who may not join, and what ends a process with one line."""

from __future__ import annotations

import pytest

from herder.clock import clock_us
from herder.store import herd as herd_sql
from tests.support.faulty_trial import path_with
from tests.support.running import WORKER
from tests.support.small_models import write_model
from tests.support.wait import wait_for

EX_CONFIG = 78


def last_line(child):
    return child.log.strip().splitlines()[-1]


def one_line(child, *words):
    """It ended with one sentence, and no traceback."""
    assert child.ended() == EX_CONFIG, child.log
    assert "Traceback" not in child.log
    for word in words:
        assert word in last_line(child)


def test_a_wrong_model_path_ends_a_worker_with_one_line(make_herd):
    herd = make_herd()
    missing = str(herd.folder / "no-such-model.gguf")
    one_line(herd.begin_worker(HERD_ENGINE="llama", HERD_MODEL_PATH=missing), missing)
    one_line(herd.begin_worker(HERD_ENGINE="llama", HERD_MODEL_PATH=""), "HERD_MODEL_PATH")


def test_a_chat_template_that_cannot_be_read_ends_a_worker_with_one_line(make_herd):
    herd = make_herd()
    model, missing = herd.folder / "model.gguf", str(herd.folder / "no-such-chat.jinja")
    model.write_bytes(b"GGUF")
    llama = {"HERD_ENGINE": "llama", "HERD_MODEL_PATH": str(model)}
    one_line(herd.begin_worker(HERD_CHAT_TEMPLATE=missing, **llama), missing, "HERD_CHAT_TEMPLATE")
    detached = (*WORKER, "-D", "-f", str(herd.folder / "w.log"))
    one_line(herd.begin_worker(detached, HERD_CHAT_TEMPLATE=missing, **llama), missing)


def test_a_model_that_is_no_generator_ends_a_worker_with_one_line(make_herd):
    herd = make_herd()
    path = write_model(herd.folder / "encoder.gguf", "bert")
    child = herd.begin_worker(HERD_ENGINE="llama", HERD_MODEL_PATH=str(path))
    one_line(child, "(bert) does not generate text: it makes embeddings", "Set HERD_MODEL_PATH")


def test_a_model_that_is_computed_wrong_ends_a_worker_with_one_line(make_herd):
    herd = make_herd()
    path = write_model(herd.folder / "model.gguf", "llama")
    llama = {"HERD_ENGINE": "llama", "HERD_MODEL_PATH": str(path)}
    child = herd.begin_worker(PYTHONPATH=path_with("wrong", herd.folder), **llama)
    said = f"llama.cpp computes the model in {path} wrong"
    one_line(child, said, "HERD_MODEL_TRIAL=false")
    # Its next start knows, and a check would find that it is right after all.
    one_line(herd.begin_worker(**llama), said, "An earlier trial found it; `herd worker check`")


def test_a_missing_key_ends_a_worker_with_one_line(make_herd):
    herd = make_herd()
    one_line(herd.begin_worker(HERD_WORKER_KEY=str(herd.folder / "none.json")), "none.json")
    broken = herd.folder / "broken.json"
    broken.write_text("{}")
    one_line(herd.begin_worker(HERD_WORKER_KEY=str(broken)), "broken.json")


def test_a_wrong_setting_ends_both_with_one_line(make_herd):
    herd = make_herd()
    one_line(herd.begin_worker(HERD_SLOTS="many"), "HERD_SLOTS")
    one_line(herd.start("h1", ["-A", "herder", "worker"], HERD_LEASE_S="0"), "HERD_LEASE_S")


def test_a_herder_without_a_home_says_how_to_make_one(make_herd, tmp_path):
    herd = make_herd()
    nowhere = str(tmp_path / "nowhere")
    child = herd.start("h1", ["-A", "herder", "worker", "-Q", "herder"], HERD_HOME=nowhere)
    one_line(child, "herd init")
    herd.settings.key_path.unlink()
    child = herd.start("h2", ["-A", "herder", "worker", "-Q", "herder"])
    one_line(child, "herd init")


def test_a_worker_of_another_model_is_refused_and_ends_though_it_came_first(herd):
    stranger = herd.begin_worker(HERD_MODEL="other-model")
    assert stranger.ended() == EX_CONFIG
    assert "The herd refused this worker" in stranger.log
    assert "other-model" in stranger.log
    assert herd.known_state(stranger.name) is None
    herd.start_worker()
    assert herd.submit().result(timeout=60).receipt.state == "completed"


def test_a_herder_names_the_model_that_its_herd_serves(make_herd):
    herd = make_herd(HERD_MODEL="other-model")
    herder = herd.start_herder()
    assert "herd_model_changed" in herder.log
    herd.start_worker()
    assert herd.submit().result(timeout=60).receipt.model == "other-model"
    herd.start_herder(HERD_MODEL="a-third-model")
    herder.says("herd_model_differs")


@pytest.mark.both_brokers
def test_a_revoked_worker_ends_and_another_runs_its_order(herd):
    revoked = herd.start_worker(HERD_SLOTS="1", HERD_STUB_STEP_MS="50")
    order = herd.submit("Tell me more.", 300)
    herd.running(order, revoked)
    with herd.database.read() as connection:
        (row,) = [w for w in herd_sql.all_workers(connection) if w.name == revoked.name]
    with herd.database.write() as connection:
        herd_sql.revoke_key(connection, row.kid, clock_us())

    assert revoked.ended() == EX_CONFIG
    assert "revoked" in revoked.log
    other = herd.start_worker(HERD_SLOTS="1")
    assert order.result(timeout=60).receipt.worker == other.name


@pytest.mark.both_brokers
def test_a_worker_of_another_herd_runs_nothing_and_delays_what_it_takes(make_herd):
    herd = make_herd(HERD_CLAIM_S="1")
    herd.start_herder()
    worker = herd.start_worker()
    # A second herd whose worker was pointed at the first one's Redis by mistake.
    stranger = make_herd(herd.redis).begin_worker()
    stranger.says("ready")
    wait_for(lambda: "unknown_key" in herd.logs, "its beats are refused")
    orders = [herd.submit(f"Number {number}", 5) for number in range(3)]
    results = [order.result(timeout=120) for order in orders]
    assert {result.receipt.worker for result in results} == {worker.name}
    assert herd.known_state(stranger.name) is None
    assert stranger.alive


@pytest.mark.parametrize("event", ["HERD_EVENTS"])
def test_events_may_be_switched_off(make_herd, event):
    herd = make_herd(**{event: "false"})
    herd.start_herder()
    herd.start_worker()
    assert herd.submit().result(timeout=60).receipt.state == "completed"
