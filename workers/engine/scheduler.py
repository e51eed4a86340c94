"""Chooses which sequences join the next batch. Pure: no clock, no model, no I/O.

The rules:
1. Admission by rank, then arrival, into free slots, and only if the cells of prompt and answer
   are free; who does not fit waits, and nobody of lower rank overtakes.
2. In each step every decoding sequence has one row. Prompts are computed beside them in chunks,
   `step_tokens` a step (`batch_tokens` if nothing decodes), by rank, and within equal rank the
   shortest remainder first, so that a long prompt stalls neither streams nor short prompts.
3. A prompt that begins like another one's takes its cells: at once where they are computed; where
   they are being computed it waits for them. Who is waited for goes first, as its best waiter.
4. When the cache says it is full all the same, cached prefixes go first, then the lowest sequence
   that runs gives up its cells and waits again; nobody is admitted until something has ended.
5. In a unified cache what ended leaves its prefix cached only if others shared it lately or
   will soon, because every resident cell costs every row that is decoded. Where each slot has a
   part of its own, nobody else's rows pass over it: there all that ended stays until its slot is
   wanted, and whoever begins alike goes on in its place.

What the cache must do is noted as `Truncate` and `Copy`, carried out in order before the rows.
"""

from __future__ import annotations

import heapq
from array import array
from collections import deque
from operator import attrgetter

from workers.engine.sequences import (
    BatchRow,
    CachedPrefix,
    Copy,
    Resident,
    Seq,
    Truncate,
    common_tokens,
)

MIN_SHARE = 16
"""Shorter common beginnings are computed again: a chunk that small costs next to nothing."""
PREFIX_ADMISSIONS = 32
"""A cached prefix that none of this many admissions used is dropped."""
HISTORY = 32
"""Ended prompts that are remembered (without their cells) to see what tends to come again."""
PREFIX_SHARE = 8
"""Cached prefixes hold at most this part of all cells: an eighth."""
LOOKAHEAD = 64
"""Waiting sequences that are looked at to see whether an ended one should stay cached."""


_slot = attrgetter("slot")


def _is_wanted(prefix: CachedPrefix) -> bool:
    return prefix.useful and prefix.unused < PREFIX_ADMISSIONS


def _mark_useful(source: Resident) -> None:
    if isinstance(source, CachedPrefix):
        source.useful, source.unused = True, 0
    else:
        source.shared = max(source.shared, 1)


class Scheduler:
    """The waiting, the running and the cached prefixes, and the cells that they hold.

    Args:
        slots: sequences that run at once.
        cells: tokens of all of them together that the cache holds.
        prefixes: further sequences of the cache for shared beginnings; 0 keeps none.
        batch_tokens: the most tokens in one step.
        step_tokens: the most prompt tokens in a step in which others decode.
        can_share: whether cells can be given from one sequence to another.
        separate: whether each slot has a part of the cache of its own. What ended in it then stays
            until the slot is wanted again: nobody else's rows have to pass over it.
    """

    def __init__(
        self,
        *,
        slots: int,
        cells: int,
        prefixes: int = 0,
        batch_tokens: int = 512,
        step_tokens: int = 512,
        can_share: bool = True,
        separate: bool = False,
    ) -> None:
        if not 1 <= slots <= batch_tokens:
            raise ValueError(f"{slots} slots do not fit into batches of {batch_tokens} tokens")
        if step_tokens < 1:
            raise ValueError("a step computes at least one prompt token")
        self.slots = slots
        self.cells = cells
        self.batch_tokens = batch_tokens
        self.step_tokens = step_tokens
        self.can_share = can_share
        self.separate = separate
        self.max_prefixes = prefixes if can_share and not separate else 0
        self.running: list[Seq] = []
        self.prefixes: list[CachedPrefix] = []
        self.reserved = 0
        """Cells promised to the running and held by cached prefixes."""
        self.reused = 0
        """Prompt tokens that were taken from others and not computed, since the start."""
        self._waiting: list[tuple[int, int, Seq]] = []
        self._gone: set[Seq] = set()
        self._free = list(range(slots + self.max_prefixes))  # a heap: see `plan`
        self._ops: list[Truncate | Copy] = []
        self._history: deque[tuple[bytes, int]] = deque(maxlen=HISTORY)
        self._full = False

    @property
    def waiting(self) -> int:
        """Sequences that have no slot."""
        return len(self._waiting) - len(self._gone)

    def add(self, seq: Seq) -> None:
        """Let a sequence wait for a slot.

        Raises:
            ValueError: it could never fit.
        """
        if seq.cells > self.cells:
            raise ValueError(f"{seq.cells} cells asked for, {self.cells} there")
        heapq.heappush(self._waiting, (-seq.rank, seq.arrival, seq))

    def remove(self, seq: Seq) -> None:
        """Remove a sequence that has ended, wherever it was."""
        if seq.slot < 0:
            self._gone.add(seq)
            return
        self.running.remove(seq)
        self.reserved -= seq.cells
        self._full = False
        if self.separate and self.can_share and seq.computed >= MIN_SHARE:
            prompt = array("i", seq.tokens[: seq.computed]).tobytes()
            kept = CachedPrefix(seq.slot, seq.computed, prompt, useful=seq.shared > 0)
            self.prefixes.append(kept)
        elif length := self._worth_keeping(seq):
            self._keep(seq, length)
        else:
            self._release(seq.slot)
        if self.max_prefixes:
            self._history.append((array("i", seq.tokens).tobytes(), seq.prompt))
        for other in self.running:
            other.forget(seq)
        for _, _, other in self._waiting:
            other.forget(seq)
        seq.slot = -1

    def admit(self) -> list[Seq]:
        """Give free slots to who waits; returns those that got one, best first."""
        admitted = []
        while len(self.running) < self.slots and (seq := self._best()) is not None:
            if self._full and self.running:
                break
            while self.reserved + seq.cells > self.cells and self.prefixes and not self.separate:
                self._drop(self._least_useful(seq))
            if self.reserved + seq.cells > self.cells:
                break  # a later one that fits would overtake it, again and again
            heapq.heappop(self._waiting)
            seq.computed = 0
            seq.slot = self._part_for(seq) if self.separate else heapq.heappop(self._free)
            self.reserved += seq.cells
            self._note_sharing(seq)
            self.running.append(seq)
            admitted.append(seq)
        return admitted

    def plan(self) -> list[BatchRow]:
        """Return the rows of the next step, by slot; empty if there is nothing to do.

        Where each sequence has a stream of its own, llama.cpp computes a run of rows together only
        if their sequences' numbers follow each other (llama-batch.cpp, `split_equal`). That is why
        rows are in order and the lowest free slot is taken: 130 tokens/s became 190 with 16 slots.
        """
        rows: list[BatchRow] = []
        prompts: list[Seq] = []
        for seq in self.running:
            if seq.decoding:
                rows.append(BatchRow(seq.slot, seq.computed, seq.tokens[seq.computed :], True, seq))
            else:
                prompts.append(seq)
        if not prompts:
            rows.sort(key=_slot)
            return rows
        room = self.batch_tokens - len(rows)
        left = min(self.step_tokens, room) if rows else room
        for seq in self._by_turn(prompts):
            count = min(left, seq.remaining)
            if count <= 0:
                break
            end = seq.computed + count
            tokens = seq.tokens[seq.computed : end]
            rows.append(BatchRow(seq.slot, seq.computed, tokens, end == len(seq.tokens), seq))
            left -= count
        rows.sort(key=_slot)
        return rows

    def take_ops(self) -> list[Truncate | Copy]:
        """Return the cache operations before the planned rows, in order."""
        ops, self._ops = self._ops, []
        return ops

    def advance(self, rows: list[BatchRow]) -> None:
        """Note that the planned rows were computed."""
        for row in rows:
            row.seq.computed += len(row.tokens)

    def make_room(self) -> bool:
        """Return the cache had no room for the planned rows: let go of something.

        Returns:
            False if a single sequence is left, and nothing can be let go.
        """
        if self.prefixes:
            self._drop(self.prefixes[0])
            return True
        if len(self.running) < 2:
            return False
        seq = min(self.running, key=lambda s: (s.rank, -s.arrival))
        self.running.remove(seq)
        self.reserved -= seq.cells
        self._release(seq.slot)
        seq.slot, seq.computed = -1, 0
        heapq.heappush(self._waiting, (-seq.rank, seq.arrival, seq))
        self._full = True
        return True

    # -- sharing ---------------------------------------------------------------------------

    def _by_turn(self, prompts: list[Seq]) -> list[Seq]:
        """Return the prompts to compute now, in order; takes over shared cells on the way."""
        turn: dict[Seq, int] = {}
        blocked: dict[Seq, Seq] = {}
        for seq in prompts:
            leader = self._share(seq) if self.can_share and seq.computed == 0 else None
            if leader is None:
                turn[seq] = seq.rank
            else:
                blocked[seq] = leader
        for seq, leader in reversed(blocked.items()):
            # whoever is waited for is as urgent as its best waiter; leaders were admitted
            # earlier than their waiters, so going backwards passes the urgency all the way on
            rank = max(seq.rank, turn.get(seq, seq.rank))
            turn[leader] = max(turn.get(leader, leader.rank), rank)
        return sorted(
            (s for s in prompts if s not in blocked),
            key=lambda s: (-turn[s], s.remaining, s.arrival),
        )

    def _share(self, seq: Seq) -> Seq | None:
        """Take the cells that others have in common with it, or say whom to wait for."""
        source: Resident | None = None
        leader: Seq | None = None
        best = pending = 0
        last = len(seq.tokens) - 1  # the last one has to be computed: it gives the logits
        earlier = True
        for other in self._residents():
            if other is seq:
                earlier = False  # waiting only for who was admitted earlier makes no circles
                continue
            common = min(seq.common(other), last)
            have = min(common, other.computed)
            if have > best:
                best, source = have, other
            if earlier and isinstance(other, Seq) and other.computed < common and common > pending:
                pending, leader = common, other
        if leader is not None and pending - best >= MIN_SHARE:
            return leader
        if source is not None and best >= MIN_SHARE:
            self._ops.append(Copy(source.slot, seq.slot, best))
            seq.computed = best
            if self.separate:
                _mark_useful(source)
                seq.shared = max(seq.shared, best)
            self.reused += best
        return None

    def _note_sharing(self, seq: Seq) -> None:
        """See what an admitted sequence has in common with the present and the recent past."""
        if not self.max_prefixes:
            return
        for other in self.running:
            common = seq.common(other)
            seq.shared = max(seq.shared, common)
            other.shared = max(other.shared, common)
        for ended, prompt in self._history:
            common = common_tokens(seq._bytes, ended)
            seq.shared = max(seq.shared, common)
            # the next turn of a conversation: the turn after it will want all of this one
            seq.continues = seq.continues or common >= prompt
        for prefix in tuple(self.prefixes):
            if seq.common(prefix) >= MIN_SHARE:
                prefix.unused = 0
                self.prefixes.remove(prefix)
                self.prefixes.append(prefix)  # least recently used first
            else:
                prefix.unused += 1
                if prefix.unused >= PREFIX_ADMISSIONS:
                    self._drop(prefix)

    def _worth_keeping(self, seq: Seq) -> int:
        """Return the part of an ended sequence that should stay in the cache for others."""
        if not self.max_prefixes:
            return 0
        length = seq.computed if seq.continues else seq.shared
        for _, _, other in self._waiting[:LOOKAHEAD]:
            length = max(length, seq.common(other))
        length = min(length, seq.computed, self.cells // PREFIX_SHARE)
        if length < MIN_SHARE:
            return 0
        for resident in self._residents():
            if min(seq.common(resident), resident.computed) > min(length, seq.prompt) - MIN_SHARE:
                return 0  # somebody else holds it already, or all but a few of it
        return length

    def _keep(self, seq: Seq, length: int) -> None:
        prefix = CachedPrefix(seq.slot, length, array("i", seq.tokens[:length]).tobytes())
        for old in tuple(self.prefixes):
            if common_tokens(old._bytes, prefix._bytes) > old.computed - MIN_SHARE:
                self._drop(old)  # the new one holds what is worth holding of it
        self._ops.append(Truncate(seq.slot, length))
        self.prefixes.append(prefix)
        self.reserved += length
        while (
            len(self.prefixes) > self.max_prefixes
            or sum(d.computed for d in self.prefixes) > self.cells // PREFIX_SHARE
        ):
            self._drop(self.prefixes[0])

    def _residents(self) -> list[Resident]:
        return [*self.running, *self.prefixes]

    # -- slots -----------------------------------------------------------------------------

    def _best(self) -> Seq | None:
        while self._waiting and self._waiting[0][2] in self._gone:
            self._gone.discard(heapq.heappop(self._waiting)[2])
        return self._waiting[0][2] if self._waiting else None

    def _least_useful(self, seq: Seq) -> CachedPrefix:
        """Return the cached prefix to let go for `seq`.

        One that it does not share, the least recently used.
        """
        return min(self.prefixes, key=lambda d: seq.common(d) >= MIN_SHARE)

    def _drop(self, prefix: CachedPrefix) -> None:
        self.prefixes.remove(prefix)
        if not self.separate:
            self.reserved -= prefix.computed
        for seq in self.running:
            seq.forget(prefix)
        self._release(prefix.slot)

    def _part_for(self, seq: Seq) -> int:
        """Return the part of the cache that a sequence gets.

        Where what ended in a part began alike, it goes on from there, and nothing is copied. Else
        it is a free one, or that of the cached prefix missed least.
        """
        if not self.prefixes:
            return heapq.heappop(self._free)
        for prefix in self.prefixes:
            prefix.unused += 1
        last = len(seq.tokens) - 1
        best = max(
            (min(seq.common(one), last, one.computed) for one in self._residents()),
            default=0,
        )
        near = max(self.prefixes, key=seq.common, default=None)
        if near is not None and seq.common(near) < MIN_SHARE:
            near = None
        if near is not None:
            common = min(seq.common(near), last)
            # what is cut off should not be worth more than what is taken over
            if common >= best and 2 * common >= near.computed:
                self.prefixes.remove(near)
                for other in self.running:
                    other.forget(near)
                self._ops.append(Truncate(near.slot, common))
                seq.computed = seq.shared = common
                self.reused += common
                return near.slot
        if not self._free:  # `near` goes last: it is about to be copied from
            self._drop(
                min(
                    self.prefixes,
                    key=lambda d: (_is_wanted(d), d is near, -d.unused, d.computed),
                )
            )
        return heapq.heappop(self._free)

    def _release(self, slot: int) -> None:
        self._ops.append(Truncate(slot, 0))
        heapq.heappush(self._free, slot)
