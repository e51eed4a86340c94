"""The engine on the deterministic model, turn by turn and without a thread."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.engine.engine import Engine
from workers.engine.stub import StubModel
from workers.engine.work import Completion, GenerationRequest, Prepared, Sampler
from workers.errors import DuplicateWork, NotAccepting, WorkerError
from workers.wire import ChatMessage, Sampling

_keys = itertools.count()


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.prompt_tokens: int | None = None
        self.pieces: list[str] = []
        self.ends: list[Completion] = []
        self.ended = threading.Event()

    def on_start(self, prompt_tokens: int) -> None:
        assert self.prompt_tokens is None
        self.prompt_tokens = prompt_tokens

    def on_text(self, text: str, generated: int, _reasoning: int) -> None:
        assert text
        assert generated > 0
        assert not self.ends
        self.pieces.append(text)

    def on_end(self, end: Completion) -> None:
        self.ends.append(end)
        assert end.text == "".join(self.pieces)
        self.ended.set()

    @property
    def end(self) -> Completion:
        (end,) = self.ends
        return end


def work(prompt: str | None = "Once upon a time", **changes: object) -> GenerationRequest:
    values: dict[str, object] = {
        "key": f"order{next(_keys)}:1",
        "prompt": prompt,
        "messages": None,
        "raw": False,
        "tokens": 8,
        "stop": (),
        "sampling": Sampling(temperature=0),
        "rank": 0,
        "run_limit_s": 1000.0,
    }
    return GenerationRequest(**(values | changes))  # type: ignore[arg-type]


def run(engine: Engine, *works: GenerationRequest, steps: int = 1000) -> list[Heard]:
    heard = [Heard() for _ in works]
    for one, listener in zip(works, heard, strict=True):
        engine.submit(one, listener)
    for _ in range(steps):
        if not engine.step():
            break
    return heard


def test_text_follows_from_the_prompt_alone() -> None:
    alone = run(Engine(StubModel()), work("a llama"))[0]
    beside = run(Engine(StubModel()), *(work(f"sheep {i}") for i in range(9)), work("a llama"))[-1]
    other = run(Engine(StubModel()), work("an alpaca"))[0]
    assert alone.end.reason == beside.end.reason == "length"
    assert alone.end.text == beside.end.text != other.end.text
    assert alone.end.generated == 8
    assert alone.prompt_tokens == alone.end.prompt_tokens == 4


def test_ends_as_the_prompt_says() -> None:
    engine = Engine(StubModel())
    ended, failed, troubled, late = run(
        engine,
        work("[[end:3]]"),
        work("[[fail]]"),
        work("[[trouble]]"),
        work("[[fail:2]]"),
    )
    assert (ended.end.reason, ended.end.generated) == ("stop", 3)
    assert failed.end.reason == "failed"
    assert failed.end.error is not None
    assert failed.end.error.permanent
    assert failed.prompt_tokens is None, "it never began"
    assert troubled.end.error is not None
    assert not troubled.end.error.permanent
    assert (late.end.reason, late.end.generated) == ("failed", 2)
    assert late.end.text
    assert engine.idle


def test_stop_string_across_tokens_is_never_shown_in_part() -> None:
    (heard,) = run(
        Engine(StubModel()), work("[[say:one two three four]]", tokens=50, stop=("o three f", "zz"))
    )
    assert heard.end.reason == "stop"
    assert heard.end.text == "one tw"
    assert heard.end.generated == 4, "tokens cut off by the stop string are counted"


def test_held_back_text_comes_at_the_end_if_it_was_no_stop_string() -> None:
    (heard,) = run(Engine(StubModel()), work("[[say:one two]]", tokens=2, stop=("two three",)))
    assert (heard.end.reason, heard.end.text) == ("length", "one two")


def test_characters_are_whole() -> None:
    (heard,) = run(Engine(StubModel()), work("[[utf8]]", tokens=20))
    assert all("�" not in piece for piece in heard.pieces)
    assert heard.end.text.startswith("naïve Grüße 水の 🦙🐑")
    (cut,) = run(Engine(StubModel()), work("[[utf8]]", tokens=5))
    assert cut.end.text == "naïve Gr", "the half of a character is left out"


def test_too_long_is_told_with_both_counts_and_never_begins() -> None:
    (heard,) = run(Engine(StubModel(context=16)), work("a b c d e f", tokens=10))
    error = heard.end.error
    assert heard.end.reason == "failed"
    assert heard.prompt_tokens is None
    assert error is not None
    assert (error.code, error.permanent) == ("prompt_too_long", True)
    assert error.data == {"prompt_tokens": 8, "tokens": 10, "context": 16}
    (fits,) = run(Engine(StubModel(context=18)), work("a b c d e f", tokens=10))
    assert fits.end.reason == "length"


def test_tokens_that_the_herd_chose_are_cut_to_what_the_prompt_leaves() -> None:
    for context, left in ((19, 10), (18, 10), (16, 8), (9, 1)):
        (heard,) = run(
            Engine(StubModel(context=context)), work("a b c d e f", tokens=10, fit_tokens=True)
        )
        assert (heard.prompt_tokens, heard.end.reason) == (8, "length")
        assert heard.end.generated == left
    (cells,) = run(
        Engine(StubModel(context=64, slots=1, cells=16)),
        work("a b c d e f", tokens=10, fit_tokens=True),
    )
    assert (cells.end.reason, cells.end.generated) == ("length", 8)
    (full,) = run(Engine(StubModel(context=8)), work("a b c d e f", tokens=10, fit_tokens=True))
    assert full.end.error is not None
    assert (full.end.error.code, full.end.error.permanent) == ("prompt_too_long", True)
    assert full.end.error.data == {"prompt_tokens": 8, "tokens": 1, "context": 8}


def test_empty_raw_prompt_fails_and_messages_run() -> None:
    messages = (ChatMessage(role="system", content="be"), ChatMessage(role="user", content="hi"))
    empty, chat = run(
        Engine(StubModel()), work("", raw=True), work(None, messages=messages, tokens=1)
    )
    assert empty.end.error is not None
    assert empty.end.error.code == "empty_prompt"
    assert chat.end.prompt_tokens == 6


def test_higher_rank_first_then_arrival() -> None:
    engine = Engine(StubModel(slots=1))
    works = [work(f"p{i}", rank=rank, tokens=1) for i, rank in enumerate((1, 5, 5, 9))]
    order: list[str] = []
    for one in works:
        heard = Heard()
        heard.on_start = lambda _, key=one.key: order.append(key)  # type: ignore[method-assign,misc]
        engine.submit(one, heard)
    while engine.step():
        pass
    assert order == [works[i].key for i in (3, 1, 2, 0)]


def test_cancel_running_and_waiting() -> None:
    engine = Engine(StubModel(slots=1))
    first, second = work("[[hang:3]]", tokens=100), work("later")
    heard = run(engine, first, second, steps=10)
    assert engine.running == [first.key]
    assert engine.waiting == [second.key]
    engine.cancel(first.key)
    engine.cancel(second.key, "deadline")
    engine.cancel("nobody")
    engine.step()
    assert (heard[0].end.reason, heard[0].end.generated) == ("cancelled", 3)
    assert (heard[1].end.reason, heard[1].end.generated) == ("deadline", 0)
    assert engine.idle


def test_run_limit_counts_from_the_start() -> None:
    clock = Clock()
    model = StubModel(slots=1, step_s=1.0, sleep=clock.sleep)
    engine = Engine(model, clock=clock)
    slow, late = work(tokens=100, run_limit_s=5.0), work(tokens=3, run_limit_s=4.0)
    heard = run(engine, slow, late)
    assert heard[0].end.reason == "deadline"
    assert heard[0].end.generated == 5
    assert heard[0].end.prefill_s == pytest.approx(1.0)
    assert heard[0].end.decode_s == pytest.approx(4.0)
    assert heard[1].end.reason == "length", "it waited longer than its limit, but did not run"
    assert heard[1].end.queued_s == pytest.approx(5.0)


def test_drain_hands_back_what_has_not_begun_then_the_rest() -> None:
    clock = Clock()
    engine = Engine(StubModel(slots=2, step_s=1.0, sleep=clock.sleep), clock=clock)
    works = [work(tokens=4), work("[[hang:6]]", tokens=100), work("waits")]
    heard = run(engine, *works, steps=2)
    engine.drain(8.0)
    with pytest.raises(NotAccepting):
        engine.submit(work(), Heard())
    while engine.step():
        pass
    assert heard[0].end.reason == "length"
    assert (heard[1].end.reason, heard[1].end.generated) == ("handed_back", 6)
    assert (heard[2].end.reason, heard[2].end.queued_s) == ("handed_back", 2.0)
    assert engine.idle


def test_a_dead_model_ends_everything_and_says_so() -> None:
    told: list[object] = []
    engine = Engine(StubModel(), on_broken=told.append)
    good, bad = work(tokens=100), work("[[break]]")
    heard = run(engine, good, bad)
    for one in heard:
        assert one.end.reason == "failed"
        assert one.end.error is not None
        assert not one.end.error.permanent
    assert told == [engine.broken]
    with pytest.raises(NotAccepting):
        engine.submit(work(), Heard())
    assert engine.idle


def test_a_listener_that_fails_harms_nobody_else() -> None:
    class Bad(Heard):
        def on_text(self, text: str, generated: int, _reasoning: int) -> None:  # noqa: ARG002
            raise RuntimeError("boom")

    engine = Engine(StubModel())
    engine.submit(work(), Bad())
    (heard,) = run(engine, work())
    assert heard.end.reason == "length"


def test_same_key_twice() -> None:
    engine = Engine(StubModel())
    one = work()
    engine.submit(one, Heard())
    with pytest.raises(DuplicateWork):
        engine.submit(one, Heard())
    while engine.step():
        pass
    run(engine, one)


def test_in_its_thread_and_stopped() -> None:
    model = StubModel(slots=2)
    engine = Engine(model)
    engine.start()
    heard = [Heard() for _ in range(10)]
    for i, listener in enumerate(heard):
        engine.submit(work("[[hang]]" if i == 9 else f"p{i}", tokens=5), listener)
    for listener in heard[:9]:
        assert listener.ended.wait(10)
        assert listener.end.reason == "length"
    assert engine.stop(10)
    assert heard[9].end.reason == "handed_back"
    assert model.closed
    assert model.cells_in_use >= 0
    with pytest.raises(NotAccepting):
        engine.submit(work(), Heard())
    assert engine.stop(), "twice does no harm"


def test_drain_in_a_thread_ends_by_itself() -> None:
    engine = Engine(StubModel())
    engine.start()
    hung = Heard()
    engine.submit(work("[[hang]]"), hung)
    engine.drain(0.05)
    assert hung.ended.wait(10)
    assert hung.end.reason == "handed_back"
    assert engine.stop(10)


def test_calibration_leaves_nothing_behind() -> None:
    clock = Clock()
    model = StubModel(slots=3, step_s=0.01, sleep=clock.sleep)
    engine = Engine(model, clock=clock)
    assert engine.calibrate(1.0) == pytest.approx(100, rel=0.05)
    assert model.cells_in_use == 0
    run(engine, work())


def test_called_off_while_its_prompt_is_prepared() -> None:
    class Slow(StubModel):
        def prepare(self, work: GenerationRequest) -> Prepared:
            engine.cancel(work.key)
            assert not engine.step()
            return super().prepare(work)

    engine = Engine(Slow())
    (heard,) = run(engine, work())
    assert heard.end.reason == "cancelled"
    assert heard.prompt_tokens is None


def test_stopped_while_a_prompt_is_prepared() -> None:
    class Slow(StubModel):
        def prepare(self, work: GenerationRequest) -> Prepared:
            engine.stop()
            return super().prepare(work)

    engine = Engine(Slow())
    with pytest.raises(NotAccepting):
        engine.submit(work(), Heard())
    assert engine.idle


def test_a_step_that_does_not_come_back_can_be_seen() -> None:
    clock = Clock()
    ages = []

    class Stuck(StubModel):
        def sample(self, samplers: Sequence[Sampler | None]) -> list[int | WorkerError | None]:
            clock.sleep(9)
            ages.append(engine.step_age_s)
            return super().sample(samplers)

    engine = Engine(Stuck(), clock=clock)
    run(engine, work(tokens=1))
    assert ages == [9]
    assert engine.step_age_s == 0


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.sampled_from([30, 64, 200]))
def test_whatever_happens_each_hears_one_end_and_no_cell_stays(
    seed: int, slots: int, cells: int
) -> None:
    chance = random.Random(seed)
    clock = Clock()
    model = StubModel(
        slots=slots, context=cells, cells=cells, step_s=0.1, batch_tokens=16, sleep=clock.sleep
    )
    # a scheduler that may be wrong about the room there is meets a full cache
    engine = Engine(model, clock=clock)
    engine._scheduler.cells = cells * chance.choice([1, 3])
    marks = ["", "[[end:2]]", "[[hang:1]]", "[[fail:1]]", "[[fail]]", "[[utf8]]", "word " * 12]
    heard: list[Heard] = []
    works: list[GenerationRequest] = []
    for _ in range(chance.randint(1, 30)):
        works.append(
            work(
                f"{'shared beginning ' * 4}{chance.choice(marks)}{chance.random()}",
                tokens=chance.randint(1, 12),
                rank=chance.randint(0, 2),
                run_limit_s=chance.choice([0.5, 3.0, 20.0]),
                stop=chance.choice([(), (" the",)]),
            )
        )
        heard.append(Heard())
        engine.submit(works[-1], heard[-1])
        for _ in range(chance.randint(0, 4)):
            engine.step()
        if chance.random() < 0.2:
            engine.cancel(chance.choice(works).key)
    if chance.random() < 0.5:
        engine.drain(chance.choice([0.0, 1.0, 5.0]))
    for _ in range(3000):
        if not engine.step():
            break
    assert engine.idle
    assert engine.broken is None
    for one, asked in zip(heard, works, strict=True):
        assert one.end.generated <= asked.tokens
        assert (one.end.error is not None) == (one.end.reason == "failed")
        assert one.end.queued_s >= 0
        assert one.end.prefill_s >= 0
        assert one.end.decode_s >= 0
    assert model.cells_in_use == sum(prefix.computed for prefix in engine._scheduler.prefixes)


def test_engine_and_stub_load_neither_llama_cpp_nor_celery_nor_numpy() -> None:
    code = (
        "import sys, workers.engine, workers.engine.stub, workers.tuning.check\n"
        "assert not {'llama_cpp', 'celery', 'numpy', 'herder'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
