"""A worker on a model of one's own: the example of workers/engine/README.md."""

from __future__ import annotations

import os

import pytest

from herder.errors import OrderFailed, PromptTooLong
from tests.flow.test_refused import one_line
from tests.support.own_engine import write_example


def test_a_worker_runs_on_the_example_of_the_readme(herd):
    write_example(herd.folder)
    path = os.pathsep.join((herd.env["PYTHONPATH"], str(herd.folder)))
    herd.start_worker(HERD_ENGINE="capitals:load", HERD_CONTEXT="64", PYTHONPATH=path)

    result = herd.submit("one llama", 20, fee=100).result(timeout=60)
    assert (result.text, result.finish_reason) == ("ONE LLAMA", "stop")
    assert (result.receipt.state, result.receipt.generated) == ("completed", 9)
    assert result.receipt.charged + result.receipt.returned == 100
    cut = herd.submit("one llama", 3).result(timeout=60)
    assert (cut.text, cut.finish_reason, cut.receipt.generated) == ("ONE", "length", 3)

    refused = herd.submit("one llama", 20, sampling={"json_schema": '{"type": "object"}'})
    with pytest.raises(OrderFailed, match="follows neither a JSON schema nor a grammar") as caught:
        refused.result(timeout=60)
    assert caught.value.result.receipt.returned == refused.fee
    with pytest.raises(PromptTooLong):
        herd.submit("llama " * 20, 20)


def test_an_engine_that_is_not_there_ends_a_worker_with_one_line(make_herd):
    herd = make_herd()
    one_line(herd.begin_worker(HERD_ENGINE="no_such_engine:load"), "no_such_engine", "PYTHONPATH")
