"""The gateway of `herd up --gateway`, and a buyer's account and key for it.

A newcomer gets a herd that programs can buy from at once: an address, play money and a key. Money
is deposited once, where the account never had any; a key is made at each start and shown then,
since only its digest is stored. Keys of earlier starts stay valid, the newest few.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import NAMESPACE_URL, uuid5

from herder.accounts.api_keys import ApiKeys
from herder.clock import clock_us
from herder.host.supervisor import Program
from herder.local.local_herd import LocalHerd
from herder.web.serving import join_address, listen
from herder.web.stopping import LAST_S

PLAY_MONEY = 100_000
"""Winston for an account that never had any."""
KEY_NAME = "herd up"
MAX_KEYS = 10
"""Keys of earlier starts that stay valid, with the new one."""
NOTE = "play money of herd up --gateway"
KILL_S = 5
"""A gateway ends itself after its grace time; this much later its supervisor does."""

_ANY = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104  (what is listened on)
_HERD = (sys.executable, "-P", "-c", "from herder.cli import main; main()")


class Chosen(Protocol):
    """The settings of a gateway that are read here; it checks and reads the others itself."""

    @property
    def gateway_host(self) -> str:
        """The address that it listens on."""

    @property
    def gateway_port(self) -> int:
        """Its port; 0 for any free one."""

    @property
    def gateway_grace_s(self) -> int:
        """Seconds that it gives open calls when it is told to stop."""


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """A gateway that will run.

    Attributes:
        host: an address at which it can be reached from this machine.
        port: its port.
        program: what is run.
    """

    host: str
    port: int
    program: Program

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{join_address(self.host, self.port)}"

    def answers(self) -> bool:
        """Return whether something listens there."""
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Buyer:
    """A buyer who can use it.

    Attributes:
        account: who pays.
        available: its money in winston.
        deposited: the play money among that, if it was given now.
        key: the API key's text.
    """

    account: str
    available: int
    deposited: int
    key: str


def plan_gateway(settings: Chosen, env: Mapping[str, str]) -> GatewayPlan:
    """Return the gateway to start, on a port that is free now and stays the same.

    Args:
        settings: the gateway's.
        env: the environment of the herd's programs.

    Raises:
        SetupError: its address cannot be had.
    """
    with listen(
        settings.gateway_host, settings.gateway_port, "gateway", "HERD_GATEWAY_PORT"
    ) as probe:
        host, port = probe.getsockname()[:2]
    command = [*_HERD, "gateway", "--host", settings.gateway_host, "--port", str(port)]
    stop_s = settings.gateway_grace_s + LAST_S + KILL_S
    program = Program("gateway", command, env, stop_s)
    return GatewayPlan(_ANY.get(host, host), port, program)


def open_buyer(herd: LocalHerd, account: str) -> Buyer:
    """Return an account that can buy, with a new key.

    Args:
        herd: the herd.
        account: whose money is spent; it exists.
    """
    deposited = 0
    if not herd.statement(account, limit=1):
        # By its name, so that two starts at once deposit one sum.
        transfer = str(uuid5(NAMESPACE_URL, f"llama-herder/play-money/{account}"))
        herd.accounts.deposit(account, PLAY_MONEY, transfer, NOTE)
        deposited = PLAY_MONEY
    _, text = herd.api_keys.create(account, name=KEY_NAME)
    _forget_old(herd.api_keys, account)
    return Buyer(account, herd.balance(account).available, deposited, text)


def _forget_old(keys: ApiKeys, account: str) -> None:
    """Revoke the keys of starts long ago, so that there are never many."""
    now_us = clock_us()
    ours = [key for key in keys.list(account) if key.name == KEY_NAME and key.lives(now_us)]
    for key in ours[:-MAX_KEYS]:
        keys.revoke(key.id)
