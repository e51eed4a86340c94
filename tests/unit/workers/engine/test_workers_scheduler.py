"""The scheduler against a model of the cache, which refuses what llama.cpp would abort for."""

from __future__ import annotations

import random
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.engine.scheduler import PREFIX_ADMISSIONS, Scheduler
from workers.engine.sequences import BatchRow, Copy, Seq, Truncate, common_tokens


class Cache:
    """Which tokens each sequence holds; with a bound, and shared cells counted once for each."""

    def __init__(self, sequences: int, cells: int) -> None:
        self.held: dict[int, list[int]] = {slot: [] for slot in range(sequences)}
        self.cells = cells

    def carry_out(self, ops: list[Truncate | Copy]) -> None:
        for op in ops:
            if isinstance(op, Truncate):
                assert op.length <= len(self.held[op.slot])
                del self.held[op.slot][op.length :]
            else:
                assert not self.held[op.target], "a copy onto cells"
                assert len(self.held[op.source]) >= op.length > 0
                self.held[op.target] = self.held[op.source][: op.length]
        assert sum(map(len, self.held.values())) <= self.cells

    def compute(self, rows: list[BatchRow]) -> None:
        for row in rows:
            assert row.tokens
            assert len(self.held[row.slot]) == row.start
            self.held[row.slot] += row.tokens
            assert self.held[row.slot] == row.seq.tokens[: row.start + len(row.tokens)]
            assert row.output == (len(self.held[row.slot]) == len(row.seq.tokens))
        assert sum(map(len, self.held.values())) <= self.cells


def seq(tokens: list[int], limit: int = 4, rank: int = 0, arrival: int = 0) -> Seq:
    return Seq(f"{arrival}", list(tokens), limit, rank, arrival)


def turn(scheduler: Scheduler, cache: Cache) -> tuple[list[Seq], list[BatchRow]]:
    """One step: admit, plan, compute, one token each; sequences that are done leave."""
    admitted = scheduler.admit()
    rows = scheduler.plan()
    cache.carry_out(scheduler.take_ops())
    cache.compute(rows)
    scheduler.advance(rows)
    for row in rows:
        if row.output:
            row.seq.tokens.append(7)
            if len(row.seq.tokens) == row.seq.prompt + row.seq.limit:
                scheduler.remove(row.seq)
    return admitted, rows


def finish(scheduler: Scheduler, cache: Cache, *ones: Seq) -> list[Seq]:
    for one in ones:
        scheduler.add(one)
    admitted: list[Seq] = []
    for _ in range(10_000):
        started, rows = turn(scheduler, cache)
        admitted += started
        if not rows and not scheduler.waiting:
            return admitted
    raise AssertionError("it never ends")


def test_rank_then_arrival_and_nobody_overtakes_who_does_not_fit() -> None:
    scheduler, cache = Scheduler(slots=4, cells=100), Cache(4, 100)
    first = seq([1] * 50, 10, rank=1, arrival=1)
    large = seq([2] * 50, 10, rank=5, arrival=2)
    small = seq([3] * 5, 5, rank=3, arrival=3)
    scheduler.add(first)
    assert scheduler.admit() == [first]
    scheduler.add(small)
    scheduler.add(large)
    assert scheduler.admit() == [], "small would fit, but large is before it"
    assert finish(scheduler, cache) == [large, small]


def test_a_long_prompt_is_computed_beside_the_others_in_chunks() -> None:
    scheduler = Scheduler(slots=4, cells=4000, batch_tokens=512, step_tokens=64)
    cache = Cache(4, 4000)
    stream = seq([1, 2, 3], 50, arrival=1)
    scheduler.add(stream)
    turn(scheduler, cache)
    scheduler.add(seq([9] * 300, 2, arrival=2))
    scheduler.add(seq([8] * 40, 2, arrival=3))
    _, rows = turn(scheduler, cache)
    assert [(r.seq.arrival, len(r.tokens)) for r in rows] == [(1, 1), (2, 24), (3, 40)]
    _, rows = turn(scheduler, cache)
    assert [(r.seq.arrival, len(r.tokens)) for r in rows] == [(1, 1), (2, 64), (3, 1)]
    assert len(stream.tokens) == 6, "it had a token in each step"


def test_rank_goes_before_the_shortest_remainder() -> None:
    scheduler = Scheduler(slots=4, cells=4000, batch_tokens=100)
    for one in (seq([9] * 300, rank=2, arrival=1), seq([8] * 40, rank=1, arrival=2)):
        scheduler.add(one)
    scheduler.admit()
    assert [(r.seq.arrival, len(r.tokens)) for r in scheduler.plan()] == [(1, 100)]


def test_one_computes_a_shared_prefix_and_the_others_take_its_cells() -> None:
    scheduler = Scheduler(slots=8, cells=8000, batch_tokens=100, prefixes=2)
    cache = Cache(10, 8000)
    system = list(range(1000, 1400))
    for i in range(8):
        scheduler.add(seq([*system, i, i, i], 5, arrival=i))
    computed = 0
    for _ in range(60):
        _, rows = turn(scheduler, cache)
        computed += sum(len(r.tokens) for r in rows if r.start < r.seq.prompt)
    assert computed == 400 + 8 * 3
    assert scheduler.reused == 7 * 400
    assert not scheduler.running
    (prefix,) = scheduler.prefixes
    assert prefix.computed == 400, "others shared it: it stays, and only it"
    assert scheduler.reserved == 400
    late = seq([*system, 77, 78], 3, arrival=99)
    scheduler.add(late)
    _, rows = turn(scheduler, cache)
    assert [(r.start, len(r.tokens)) for r in rows] == [(400, 2)]


def test_what_nobody_shares_leaves_no_donor() -> None:
    scheduler, cache = Scheduler(slots=2, cells=1000, prefixes=4), Cache(6, 1000)
    for i in range(10):
        scheduler.add(seq([i * 100 + j for j in range(50)], 5, arrival=i))
    finish(scheduler, cache)
    assert not scheduler.prefixes
    assert scheduler.reserved == 0
    assert not any(cache.held.values())


def test_the_third_turn_of_a_conversation_finds_the_second() -> None:
    scheduler, cache = Scheduler(slots=2, cells=4000, prefixes=2), Cache(4, 4000)
    tokens = list(range(60))
    for arrival in range(3):
        one = seq(tokens, 5, arrival=arrival)
        scheduler.add(one)
        finish(scheduler, cache)
        tokens = [*one.tokens, *range(arrival * 100, arrival * 100 + 20)]
    # of the second turn all cells stayed but that of its last token, which was never computed
    assert scheduler.reused == len(one.tokens) - 5 - 20 - 1


def test_a_dear_order_that_waits_for_a_prefix_lends_its_rank() -> None:
    scheduler = Scheduler(slots=3, cells=9000, batch_tokens=100, prefixes=2)
    system = list(range(500))
    cheap, dear = seq([*system, 1], rank=1, arrival=1), seq([*system, 2], rank=9, arrival=3)
    middle = seq([5] * 400, rank=5, arrival=2)
    scheduler.add(cheap)
    scheduler.admit()
    scheduler.advance(scheduler.plan())
    scheduler.add(middle)
    scheduler.add(dear)
    scheduler.admit()
    assert [r.seq for r in scheduler.plan()] == [cheap]


def test_when_the_leader_is_cancelled_a_follower_computes() -> None:
    scheduler, cache = (
        Scheduler(slots=3, cells=9000, batch_tokens=100, prefixes=2),
        Cache(5, 9000),
    )
    system = list(range(500))
    leader, follower = seq([*system, 1], arrival=1), seq([*system, 2], arrival=2)
    scheduler.add(leader)
    scheduler.add(follower)
    turn(scheduler, cache)
    scheduler.remove(leader)
    _, rows = turn(scheduler, cache)
    assert [r.seq for r in rows] == [follower]
    finish(scheduler, cache)


def test_full_cache_lets_go_of_donors_then_of_the_lowest() -> None:
    scheduler, cache = Scheduler(slots=3, cells=1000, prefixes=2), Cache(5, 1000)
    system = list(range(100))
    for i in range(2):
        scheduler.add(seq([*system, i], 2, arrival=i))
    finish(scheduler, cache)
    assert len(scheduler.prefixes) == 1
    low, high = seq([1] * 20, 9, rank=1, arrival=10), seq([2] * 20, 9, rank=2, arrival=11)
    scheduler.add(low)
    scheduler.add(high)
    turn(scheduler, cache)
    turn(scheduler, cache)
    assert scheduler.make_room()
    assert not scheduler.prefixes
    assert scheduler.make_room()
    assert scheduler.running == [high]
    assert not scheduler.make_room(), "a single one cannot go on elsewhere"
    assert scheduler.admit() == [], "not before something has ended"
    assert finish(scheduler, cache) == [low]
    assert low.tokens[20:] == [7] * 9


def test_the_ended_are_forgotten() -> None:
    scheduler, cache = Scheduler(slots=2, cells=1000, prefixes=2), Cache(4, 1000)
    alive = [seq([1] * 40, 300, arrival=0)]
    scheduler.add(alive[0])
    for i in range(20):
        scheduler.add(seq([1] * 30 + [i], 2, arrival=i + 1))
    for _ in range(100):
        turn(scheduler, cache)
    assert scheduler.running == alive
    assert not alive[0]._common, "or each would keep those before it in memory, without end"


def test_refuses_what_could_never_fit() -> None:
    with pytest.raises(ValueError, match="cells"):
        Scheduler(slots=1, cells=10).add(seq([1] * 8, 3))
    with pytest.raises(ValueError, match="batches"):
        Scheduler(slots=9, cells=10, batch_tokens=8)


def separate(slots: int, part: int = 200) -> tuple[Scheduler, Cache]:
    cells = slots * part
    return Scheduler(slots=slots, cells=cells, separate=True), Cache(slots, cells)


def test_rows_are_in_the_order_of_slots_and_the_lowest_slot_is_taken() -> None:
    scheduler, cache = separate(4)
    brief = [seq([n, n + 1], 1 + n, arrival=n) for n in range(4)]
    for one in brief:
        scheduler.add(one)
    turn(scheduler, cache)  # the first has ended: too short to stay
    assert [one.slot for one in brief] == [-1, 1, 2, 3]
    late = seq([9] * 30, 3, rank=5, arrival=9)
    scheduler.add(late)
    _, rows = turn(scheduler, cache)
    assert late.slot == 0
    assert [row.slot for row in rows] == [0, 1, 2, 3]


def test_a_part_whose_prompt_began_alike_goes_on_without_a_copy() -> None:
    scheduler, cache = separate(2)
    finish(scheduler, cache, seq([1] * 50 + [2], 3, arrival=0))
    next_turn = seq([1] * 50 + [2, 7, 7, 7, 5, 5], 3, arrival=1)
    scheduler.add(next_turn)
    scheduler.admit()
    rows = scheduler.plan()
    # 51 of the prompt and two of the answer were computed; the third never was
    assert scheduler.take_ops() == [Truncate(0, 53)]
    assert [(row.slot, row.start) for row in rows] == [(0, 53)]
    assert scheduler.reused == 53


def test_the_same_prompt_again_computes_its_last_token() -> None:
    scheduler, cache = separate(1)
    finish(scheduler, cache, *(seq([1] * 50, 3, arrival=n) for n in range(2)))
    assert scheduler.reused == 49


def test_a_conversation_is_not_cut_for_one_that_shares_only_its_head() -> None:
    scheduler, cache = separate(2)
    head = [1] * 30
    finish(scheduler, cache, seq(head + [2] * 100, 3, arrival=0))
    finish(scheduler, cache, seq(head + [3] * 5, 3, arrival=1))
    assert scheduler.reused == 30
    assert sorted(prefix.computed for prefix in scheduler.prefixes) == [
        37,
        132,
    ]
    # a stranger gets the part of the one that nobody has shared
    finish(scheduler, cache, seq([8] * 40, 3, arrival=2))
    assert sorted(prefix.computed for prefix in scheduler.prefixes) == [
        42,
        132,
    ]


def test_what_nobody_shares_any_more_is_not_wanted_for_ever() -> None:
    scheduler, cache = separate(2)
    head = [1] * 30
    finish(scheduler, cache, seq(head + [2] * 100, 3, arrival=0))
    finish(scheduler, cache, seq(head + [3] * 5, 3, arrival=1))
    for n in range(PREFIX_ADMISSIONS + 2):
        finish(scheduler, cache, seq([4 + n] * 40, 3, arrival=2 + n))
    assert [prefix.computed for prefix in scheduler.prefixes] == [
        42,
        42,
    ]


def test_a_wave_after_a_wave_computes_its_common_head_once() -> None:
    scheduler, cache = separate(4)
    for wave in range(3):
        batch = [seq([1] * 100 + [10 + n], 2, arrival=4 * wave + n) for n in range(4)]
        finish(scheduler, cache, *batch)
    assert scheduler.reused == 11 * 100


@pytest.mark.parametrize("separate", [True, False])
def test_who_may_not_share_computes_all_and_leaves_nothing(separate: bool) -> None:
    scheduler = Scheduler(slots=2, cells=400, prefixes=2, can_share=False, separate=separate)
    cache = Cache(4, 400)
    finish(scheduler, cache, *(seq([1] * 50 + [n], 3, arrival=n) for n in range(4)))
    assert scheduler.reused == 0
    assert not scheduler.prefixes
    assert not any(cache.held.values())


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40))
def test_common_beginning(one: list[int], other: list[int]) -> None:
    expected = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    assert common_tokens(array("i", one).tobytes(), array("i", other).tobytes()) == expected


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from([60, 120, 400]),
    st.integers(0, 4),
    st.booleans(),
)
def test_any_story_ends_within_the_bounds(
    seed: int, slots: int, prefixes: int, cells: int, trouble: int, separate: bool
) -> None:
    """Orders come, are cancelled, meet a full cache; the bounds hold at every step."""
    chance = random.Random(seed)
    batch = chance.choice([8, 32, 100])
    if separate:  # so many cells for each slot
        cells, prefixes = cells * slots, 0
    scheduler = Scheduler(
        slots=slots,
        cells=cells,
        prefixes=prefixes,
        batch_tokens=batch,
        step_tokens=min(batch, 16),
        separate=separate,
    )
    cache = Cache(slots + prefixes, cells)
    heads = [[h] * 20 for h in range(2)]
    alive: list[Seq] = []
    coming = 25
    for _ in range(3000):
        if coming and chance.random() < 0.5:
            coming -= 1
            head = chance.choice([[], *heads])
            body = [chance.randrange(3) for _ in range(chance.randint(1, 20))]
            one = seq([*head, *body], chance.randint(1, 8), chance.randint(0, 2), 100 - coming)
            alive.append(one)
            scheduler.add(one)
        waiting = [s for s in alive if s.slot < 0]
        admitted, rows = turn(scheduler, cache)
        # admission never passes over a better one that waits
        for one in admitted:
            better = [w for w in waiting if (-w.rank, w.arrival) < (-one.rank, one.arrival)]
            assert all(w in admitted for w in better)
        assert len(scheduler.running) <= slots
        kept = scheduler.prefixes
        if separate:
            assert len(scheduler.running) + len(kept) <= slots
        else:
            assert len(kept) <= prefixes
        assert scheduler.reserved <= cells
        assert scheduler.reserved == sum(s.cells for s in scheduler.running) + (
            0 if separate else sum(d.computed for d in kept)
        )
        assert [row.slot for row in rows] == sorted({row.slot for row in rows})
        assert sum(len(r.tokens) for r in rows) <= batch
        # a sequence that is computed again may also be at tokens past its prompt
        streams = sum(r.output and r.start >= r.seq.prompt and len(r.tokens) == 1 for r in rows)
        if streams:
            assert sum(len(r.tokens) for r in rows) <= streams + scheduler.step_tokens
        alive = [s for s in alive if len(s.tokens) < s.prompt + s.limit]
        if alive and chance.random() < trouble / 50:
            gone = alive.pop(chance.randrange(len(alive)))
            scheduler.remove(gone)
        if chance.random() < trouble / 50:
            scheduler.make_room()
        if not alive and not coming:
            break
    assert not alive, "everybody ends"
    assert not scheduler.running
    cache.carry_out(scheduler.take_ops())
    held = sum(map(len, cache.held.values()))
    assert held == sum(d.computed for d in scheduler.prefixes)
    assert scheduler.reserved == (0 if separate else held)
