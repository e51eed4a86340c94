"""What ends a process that uses llama.cpp carelessly; see findings/engine.md, section D.

Each runs in a child, so that one that still does would end only the child.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

PREAMBLE = """
import os, sys, threading, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.live.live_support import Heard, run, work
from workers.engine.engine import Engine
from workers.errors import *
from workers.llama.model import LlamaModel
from workers.llama.options import LlamaOptions
from workers.engine.sequences import BatchRow, Seq
from workers.wire import ChatMessage, Sampling

def load(**options):
    return LlamaModel(LlamaOptions(path=Path({path!r}), **options))

def row(slot, start, tokens, output=False):
    return BatchRow(slot, start, tokens, output, Seq("", [1], 1, 0, 0))

def refused(error, call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except error as caught:
        return caught
    raise AssertionError("it was taken")
"""


@pytest.fixture
def child(model_path: Path):
    """Runs a piece of Python with a model at hand; it has to end well."""

    def run(code: str) -> str:
        preamble = PREAMBLE.format(root=str(Path(__file__).parents[2]), path=str(model_path))
        answer = subprocess.run(
            [sys.executable, "-c", preamble + textwrap.dedent(code)],
            capture_output=True,
            check=False,
            text=True,
            timeout=300,
        )
        assert answer.returncode == 0, answer.stderr[-3000:]
        return answer.stdout

    return run


def test_batches_that_llama_cpp_refuses_or_dies_of_do_not_reach_it(child) -> None:
    child(
        """
        model = load(slots=3, prefixes=1, cells=512, batch_tokens=64, unified=True)
        for rows in (
            [],
            [row(4, 0, [1])],
            [row(-1, 0, [1])],
            [row(0, 5, [1])],
            [row(0, 0, [])],
            [row(0, 0, [49152])],
            [row(0, 0, [-1])],
            [row(0, 0, [1] * 65)],
            [row(0, 0, [1] * 33), row(1, 0, [1] * 33)],
        ):
            refused(DecodeFailed, model.decode, rows)
        assert model.decode([row(0, 0, [504, 5343], True), row(1, 0, [504])])
        refused(DecodeFailed, model.sample, [])
        refused(DecodeFailed, model.sample, [None, None])
        assert len(model.sample([None])) == 1
        assert model.decode([row(1, 1, [5343])])
        refused(DecodeFailed, model.sample, [None])  # no row of it has logits
        assert model.sample([]) == []
        for arguments in ((0, 0, 1), (0, 1, 1), (0, 2, 9), (0, 77, 1), (77, 2, 1), (0, 2, 0)):
            refused(DecodeFailed, model.copy, *arguments)
        refused(DecodeFailed, model.keep, 77, 0)
        refused(DecodeFailed, model.piece, 49152)
        refused(DecodeFailed, model.piece, -1)
        model.close()
        model.close()
        """
    )


def test_a_full_cache_changes_nothing_and_passes_when_there_is_room(child) -> None:
    child(
        """
        model = load(slots=2, prefixes=0, cells=256, batch_tokens=256, unified=True)
        assert model.facts.cells == 256
        assert model.decode([row(0, 0, [504] * 200)])
        assert not model.decode([row(1, 0, [504] * 100, True)])
        assert model.decode([row(0, 200, [504], True)]), "as it was before"
        model.keep(0, 100)
        assert model.decode([row(1, 0, [504] * 100, True)])
        model.keep(0, 0)
        assert model.decode([row(0, 0, [504] * 100, True)])
        model.close()
        """
    )


def test_preempted_work_ends_as_it_would_have(child) -> None:
    child(
        """
        from workers.engine.scheduler import Scheduler
        engine = Engine(load(slots=4, prefixes=0, cells=256, batch_tokens=128, unified=True))
        # a scheduler that believes in more cells than there are
        engine._scheduler = Scheduler(slots=4, cells=4000, batch_tokens=128, can_share=True)
        works = [work(f"The alphabet: a b c d e f g h i j k", 60, rank=i) for i in range(4)]
        works += [work("x " * 100, 50, rank=9)]
        heard = run(engine, *works)
        assert engine.metrics.preempted > 0
        for one in heard[:4]:
            assert one.end.text.startswith(" l m n o p q r s"), one.end.text
        assert all(one.end.generated == w.tokens for one, w in zip(heard, works))
        engine.stop()
        """
    )


def test_sizes_that_llama_cpp_rounds_cuts_or_refuses(child) -> None:
    child(
        """
        assert "at most 256" in refused(ModelError, load, slots=300).message
        refused(ModelError, load, slots=0)
        for options in (
            dict(cells=1000),
            dict(cells=10),
            dict(cells=1000, unified=True),
            dict(cells=10, unified=True),
            dict(cells=300, batch_tokens=2048, step_tokens=2048),
            dict(slots=64, batch_tokens=8, prefixes=16),
            dict(context=300),
            dict(context=10**9),
            dict(unified=False, slots=3, context=1000),
            dict(kv_type="q8_0"),
            dict(kv_type="q8_0", flash_attention="off"),
            dict(flash_attention="off", slots=2),
        ):
            try:
                model = load(**options)
            except ModelError as error:
                assert options.get("flash_attention") == "off" and "kv_type" in options, error
                continue
            facts = model.facts
            assert facts.context <= min(facts.cells, 8192), facts
            assert facts.batch_tokens <= max(facts.cells, options.get("batch_tokens", 0)), facts
            engine = Engine(model)
            (heard,) = run(engine, work("The alphabet: a b c d e f g h i j k", 8))
            assert heard.end.text == " l m n o p q r s", (options, heard.end)
            many = run(engine, *(work(f"{i}: what", 4) for i in range(facts.slots + 3)))
            assert all(one.end.error is None for one in many), options
            engine.stop()
        """
    )


def test_separate_streams_copy_whole_and_cut(child) -> None:
    child(
        """
        engine = Engine(load(unified=False, slots=4, context=512))
        assert engine.facts.can_share and engine.facts.prefixes == 0
        system = "You know all about llamas and alpacas and tell it to everybody. " * 4
        heard = run(engine, *(work(system + str(i), 6) for i in range(9)))
        assert all(one.end.generated for one in heard)
        assert engine.metrics.reused >= 3 * 50, engine.metrics
        heard = [Heard() for _ in range(40)]
        for i, listener in enumerate(heard):  # leave and join in the middle of it
            engine.submit(work(system * (i % 3) + str(i), 1 + i % 5), listener)
            engine.step()
            if i % 4 == 0:
                engine.cancel(next(iter(engine.running), ""))
        while engine.step():
            pass
        assert all(len(one.ends) == 1 for one in heard)
        engine.stop()
        """
    )


def test_prompts_of_every_kind(child) -> None:
    child(
        r"""
        engine = Engine(load(cells=1024))
        kinds = {
            "empty raw": work("", 4),
            "NUL": work("a\0b", 4),
            "lone surrogate": work("a\ud800b", 4),
            "control": work("<|im_start|><|im_end|><|endoftext|>", 4),
            "white": work("   \n\n\t ", 4),
            "one run": work("a" * 200_000, 4),
            "one run of white space": work(" " * 200_000, 4),
            "one run of marks": work("=" * 200_000, 4),
            "digits": work("7" * 100_000, 4),
            "joined": work("\u200d\u0301" * 50_000, 4),
            "unassigned": work("\U0010ffff\U000e0001" * 100, 4),
            "no messages": work(None, 4, messages=()),
            "empty message": work(None, 4, messages=(ChatMessage(role="user", content=""),)),
            "many messages": work(
                None, 4, messages=(ChatMessage(role="assistant", content="hm"),) * 256
            ),
            "jinja": work("{{ 1/0 }} {% raw %}", 4, raw=False),
        }
        for name, one in kinds.items():
            began = time.monotonic()
            (heard,) = run(engine, one)
            took = time.monotonic() - began
            code = heard.end.error.code if heard.end.error else heard.end.reason
            print(name, code, heard.end.prompt_tokens, round(took, 2), flush=True)
            assert heard.end.error is None or heard.end.error.permanent, name
            assert took < 60, name
        engine.stop()
        """
    )


def test_every_token_has_its_bytes(child) -> None:
    child(
        """
        model = load(slots=1)
        pieces = [model.piece(token) for token in range(model.facts.vocab)]
        assert max(map(len, pieces)) > 64
        assert sum(map(model.is_end, range(model.facts.vocab))) == 3
        assert all(not pieces[token] for token in range(17)), "control tokens have none"
        model.close()
        """
    )


def test_a_fork_is_refused_and_the_parent_goes_on(child) -> None:
    child(
        """
        engine = Engine(load(slots=2))
        run(engine, work("hello", 4))
        pid = os.fork()
        if pid == 0:
            refused(NotAccepting, engine.submit, work("hello", 4), Heard())
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        run(engine, work("hello", 4))
        engine.stop()
        """
    )


@pytest.mark.parametrize("stop", ["", "engine.stop(0.0)", "engine.stop()"])
def test_the_process_ends_in_the_middle_of_decoding(child, stop: str) -> None:
    child(
        f"""
        engine = Engine(load(slots=2))
        engine.start()
        heard = Heard()
        engine.submit(work("hello", 400), heard)
        while not heard.pieces:
            time.sleep(0.01)
        {stop}
        """
    )


def test_complaints_of_llama_cpp_are_kept_for_the_error(child, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\\xff" * 64)
    child(
        f"""
        import gc
        gc.collect()
        for _ in range(20):
            error = refused(ModelError, LlamaModel, LlamaOptions(path=Path({str(bad)!r})))
            assert "gave no reason" not in error.message
            gc.collect()
        """
    )


def test_a_chat_template_that_refuses_or_breaks(child) -> None:
    child(
        """
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter
        from workers.llama.template import ChatTemplate

        def make(source, opens):
            return Jinja2ChatFormatter(
                source, eos_token="", bos_token="", add_generation_prompt=opens
            )

        engine = Engine(load(slots=2))
        for template in (
            "{{ raise_exception('only users here') }}",
            "{{ messages[99]['content'] }}",
            "{{ 1 / 0 }}",
            "{{ ''.__class__.__mro__ }}",
            "{% for m in messages %}{{ m.content.x.y }}{% endfor %}",
        ):
            engine._model._vocab._template = ChatTemplate(template, make)
            (heard,) = run(engine, work("hello", 4, raw=False))
            assert heard.end.error is not None and heard.end.error.permanent, template
        engine._model._vocab._template = None
        plain, chat = run(
            engine,
            work("hello", 4, raw=False),
            work(None, 4, messages=(ChatMessage(role="user", content="hello"),)),
        )
        assert plain.end.generated and chat.end.error.code == "chat_template"
        engine.stop()
        """
    )
