"""The keys that a herder believes: kept for a second, and looked for when a stranger speaks."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from herder.herd.trusted_keys import KEYS_FRESH_S, TrustedKeys
from herder.store.herd import HERDER, WORKER, add_key, revoke_key
from workers.wire import BEATS_STREAM, PrivateKey, WireError, WorkerStopped, seal, unseal


class Counted:
    """A database that counts who reads."""

    def __init__(self, database):
        self.reads = 0
        self._database = database

    @contextmanager
    def read(self):
        self.reads += 1
        with self._database.read() as connection:
            yield connection


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def counted(house):
    return Counted(house.database)


@pytest.fixture
def keys(counted, clock):
    known = TrustedKeys(counted, clock_s=clock)
    known.known()
    return known


def let_in(house) -> PrivateKey:
    key = PrivateKey.generate()
    with house.database.write() as connection:
        add_key(connection, WORKER, "newcomer", key.public, house.now_us)
    return key


def heard(keys, key) -> bool:
    token = seal(WorkerStopped(), key, sender="w-1", audience=BEATS_STREAM, now_s=1)
    try:
        unseal(token, keys.of_everybody(), audience=BEATS_STREAM)
    except WireError as error:
        return error.code != "unknown_key"
    return True


def test_the_first_word_of_a_new_worker_is_heard(house, keys, counted):
    assert heard(keys, let_in(house))
    assert counted.reads == 2


def test_strangers_make_a_herder_look_once_a_second(house, keys, counted, clock):
    for _ in range(50):
        assert not heard(keys, PrivateKey.generate())
    assert counted.reads == 2
    newcomer = let_in(house)
    assert not heard(keys, newcomer)  # the stranger's look was this second's
    clock.now_s += KEYS_FRESH_S + 0.1
    assert heard(keys, newcomer)
    for _ in range(50):
        assert not heard(keys, PrivateKey.generate())
    assert counted.reads <= 4


def test_known_keys_are_read_once_a_second(house, keys, counted, clock):
    newcomer = let_in(house)
    for _ in range(50):
        assert heard(keys, newcomer)
        assert heard(keys, house.key)
    assert counted.reads == 2
    clock.now_s += KEYS_FRESH_S + 0.1
    assert heard(keys, newcomer)
    assert counted.reads == 3


def test_each_role_has_its_keys_and_a_revoked_one_has_none(house, keys, clock):
    newcomer = let_in(house)
    assert newcomer.kid in keys.of(WORKER)
    assert newcomer.kid not in keys.of(HERDER)
    assert house.key.kid in keys.of(HERDER)
    everybody = keys.of_everybody()
    assert {newcomer.kid, house.key.kid} <= set(everybody)
    assert len(everybody) == len(keys.of(WORKER)) + len(keys.of(HERDER))
    with house.database.write() as connection:
        revoke_key(connection, newcomer.kid, house.now_us)
    clock.now_s += KEYS_FRESH_S + 0.1
    assert newcomer.kid not in keys.of(WORKER)
    assert newcomer.kid not in list(keys.of(WORKER))
    # Whoever was revoked is to hear of it.
    assert newcomer.kid in keys.of_everybody()


def test_a_revoked_key_that_keeps_talking_is_no_reason_to_look(house, keys, counted, clock):
    revoked = let_in(house)
    with house.database.write() as connection:
        revoke_key(connection, revoked.kid, house.now_us)
    clock.now_s += KEYS_FRESH_S + 0.1
    before = counted.reads
    for _ in range(50):
        assert revoked.kid not in keys.of(WORKER)
    assert counted.reads == before + 1
