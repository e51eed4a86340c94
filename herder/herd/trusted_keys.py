"""The keys that a herder trusts: those of the database, cached for a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

from herder.db.database import Database
from herder.store import herd as herd_sql
from herder.store import signers as signer_sql
from workers.transport.event_log import EventLog
from workers.wire import Envelope, PublicKey

_log = EventLog("herder.herd.trusted_keys")

KEYS_FRESH_S = 1.0
REVOKED = "The key of this worker has been revoked."
"""The word to a worker whose key is believed no more; it ends with it."""
_REVOKED = "revoked"


class TrustedKeys:
    """The keys that may be believed, read anew each second.

    It only saves work: a key's standing is looked up again in the transaction that believes it. A
    `kid` that nobody here knows may be of a worker that was let in a moment ago: it is looked for
    at once, but no more than one a second, so that forged ones cannot load the database.
    """

    def __init__(
        self, database: Database, *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._read_s = float("-inf")
        self._sought_s = float("-inf")
        self._keys: dict[str, dict[str, PublicKey]] = {}

    def of(self, *roles: str) -> Mapping[str, PublicKey]:
        """Return the live keys of these roles, by `kid`."""
        return _KeyRing(self, roles)

    def of_everybody(self) -> Mapping[str, PublicKey]:
        """Return the live keys, and those of revoked workers, to tell them so."""
        return _KeyRing(self, (herd_sql.HERDER, herd_sql.WORKER, _REVOKED))

    def own_names(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Return the messages of workers who do not pose as an instance of another key.

        An instance that is not known yet may be anybody's: its first heartbeat makes it its key's.

        Args:
            envelopes: of one batch; their signatures were checked.

        Raises:
            HerdUnavailable: the database is out of reach.
        """
        if not envelopes:
            return []
        with self._database.read() as connection:
            known = signer_sql.signers(connection, [one.sender for one in envelopes])
        own = []
        for one in envelopes:
            if one.sender in known and known[one.sender].kid != one.kid:
                _log.warning("instance_of_another_key", instance=one.sender, kid=one.kid)
            else:
                own.append(one)
        return own

    def known(self, kid: str | None = None) -> dict[str, dict[str, PublicKey]]:
        """Return all keys by role: at most a second old, fresh if `kid` was not among them."""
        with self._lock:
            now_s = self._clock_s()
            if now_s - self._read_s <= KEYS_FRESH_S:
                if kid is None or any(kid in keys for keys in self._keys.values()):
                    return self._keys
                if now_s - self._sought_s <= KEYS_FRESH_S:
                    return self._keys
                self._sought_s = now_s
            with self._database.read() as connection:
                self._keys = {
                    herd_sql.HERDER: herd_sql.live_keys(connection, herd_sql.HERDER),
                    herd_sql.WORKER: herd_sql.live_keys(connection, herd_sql.WORKER),
                    _REVOKED: herd_sql.revoked_keys(connection, herd_sql.WORKER),
                }
            self._read_s = self._clock_s()
            return self._keys


class _KeyRing(Mapping[str, PublicKey]):
    """The keys of some roles. Who is not on it is looked for, as `TrustedKeys` says."""

    def __init__(self, keys: TrustedKeys, roles: Sequence[str]) -> None:
        self._keys = keys
        self._roles = roles

    def __getitem__(self, kid: str) -> PublicKey:
        known = self._keys.known(kid)
        for role in self._roles:
            if kid in known[role]:
                return known[role][kid]
        raise KeyError(kid)

    def __iter__(self) -> Iterator[str]:
        known = self._keys.known()
        return chain.from_iterable(known[role] for role in self._roles)

    def __len__(self) -> int:
        return sum(1 for _ in self)
