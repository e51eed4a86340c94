"""`herd chat` without a terminal: lines in, answers and prices out."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from herder.errors import InvalidPrompt, StreamRestarted
from herder.local.local_herd import LocalHerd
from tests.unit.cli.herder_cli_support import Cli


@pytest.fixture
def cli(house, monkeypatch) -> Cli:
    return Cli(house, monkeypatch)


@pytest.fixture
def worker(cli, monkeypatch) -> Iterator[Any]:
    """Answers each order as `worker.replies` says in turn: a text, or what to do."""
    shepherd = cli.house.worker(slots=1, context=4096)
    shepherd.replies = []
    shepherd.jobs = []
    real = LocalHerd.submit

    def submit(herd: LocalHerd, *given: Any, **call: Any) -> Any:
        receipt = real(herd, *given, **call)
        job = cli.house.dispatched()
        shepherd.jobs.append(job)
        reply = shepherd.replies.pop(0)
        if isinstance(reply, str):
            shepherd.finish(job, text=reply, generated=len(reply.split()))
        else:
            reply(job)
        return receipt

    monkeypatch.setattr(LocalHerd, "submit", submit)
    return shepherd


def said(job: Any) -> list[str]:
    return [f"{turn.role}: {turn.content}" for turn in job.messages]


def test_each_line_is_a_turn_with_what_was_said_before_it(cli, worker):
    worker.replies = ["Hello you", "I am\nfine"]
    done = cli.run("chat", "--system", "Be brief.", "-n", "10", stdin="Hi\n\n  \nHow are you?\n")
    assert done.exit_code == 0
    assert done.stdout == "Hello you\nI am\nfine\n"
    assert said(worker.jobs[0]) == ["system: Be brief.", "user: Hi"]
    assert said(worker.jobs[1]) == [
        *("system: Be brief.", "user: Hi", "assistant: Hello you", "user: How are you?")
    ]
    first, second = cli.json("orders")["orders"][::-1]
    prices = done.stderr.splitlines()
    assert prices == [
        f"[{first['charged']} of {first['fee']} winston; {first['charged']} in total; "
        f"{100_000 - first['charged']} available]",
        f"[{second['charged']} of {second['fee']} winston; "
        f"{first['charged'] + second['charged']} in total; "
        f"{100_000 - first['charged'] - second['charged']} available]",
    ]


def test_a_program_gets_one_object_a_turn(cli, worker):
    worker.replies = ["Hello", "So é it is"]
    done = cli.run("chat", "--json", "--fee", "900", stdin="Hi\nSay é\n")
    assert (done.exit_code, done.stderr) == (0, "")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["turn"], first["text"], first["forgotten"]) == (1, "Hello", 0)
    assert (second["turn"], second["text"]) == (2, "So é it is")
    assert first["receipt"]["fee"] == second["receipt"]["fee"] == 900
    assert second["total"] == first["charged"] + second["charged"]
    assert second["available"] == 100_000 - second["total"]
    assert cli.json("order", "show", second["order"])["receipt"] == second["receipt"]


def test_commands_change_what_follows(cli, worker):
    worker.replies = ["One", "Two", "Three", "Four"]
    lines = ["Hi", "/fee 300", "Again", "/clear", "/fee auto", " /usr is what?", "/help", "/quit"]
    done = cli.run("chat", "--multiplier", "2", stdin="\n".join([*lines, "Never said"]) + "\n")
    assert (done.exit_code, done.stdout) == (0, "One\nTwo\nThree\n")
    assert [said(job) for job in worker.jobs] == [
        ["user: Hi"],
        ["user: Hi", "assistant: One", "user: Again"],
        ["user:  /usr is what?"],
    ]
    orders = cli.json("orders")["orders"][::-1]
    assert [one["automatic"] for one in orders] == [True, False, True]
    assert orders[1]["fee"] == 300
    assert [one["bid_factor"] for one in orders] == ["2", "1", "1"]
    for words in ("offers 300 winston", "is forgotten", "automatic fee", "/fee N "):
        assert words in done.stderr


def test_each_message_may_offer_what_it_needs(cli, worker):
    worker.replies = ["One", "Two"]
    done = cli.run("chat", "--fee", "900", stdin="Hi\n/fee base\nAgain\n")
    assert done.exit_code == 0, done.stderr
    assert "offers exactly what it needs" in done.stderr
    last = cli.json("orders")["orders"][0]
    assert (last["fee"], last["automatic"]) == (last["needed"], False)


@pytest.mark.parametrize("line", ["/nonsense", "/", "/fee", "/fee 1 2", "/quit now"])
def test_a_command_that_is_none_ends_a_pipe_with_2(cli, line):
    done = cli.run("chat", stdin=f"{line}\nHi\n")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "no command" in done.stderr


@pytest.mark.parametrize("fee", ["0", "-1", "1.5", "NaN", "1e400", "much", str(2**70)])
def test_a_fee_that_is_none_is_refused(cli, fee):
    done = cli.run("chat", stdin=f"/fee {fee}\nHi\n")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "fee must be a whole number" in done.stderr


@pytest.mark.parametrize(
    ("more", "said_then"),
    [
        (["--tokens", "0"], "tokens must be"),
        (["--fee", "5"], "too low"),
        (["--max-fee", "5"], "max_fee of 5"),
        (["--fee", "200000"], "operator adds money"),
        (["--model", "larger"], "larger"),
        (["--account", "nobody"], "nobody"),
    ],
)
def test_a_turn_that_is_refused_ends_a_pipe_and_costs_nothing(cli, more, said_then):
    before = cli.money()
    done = cli.run("chat", *more, stdin="Hi\nAgain\n")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said_then in done.stderr
    hinted = more[0] == "--account" or "operator" in said_then
    assert ("`herd account" in done.stderr) is hinted
    done = cli.run("chat", "--json", *more, stdin="Hi\nAgain\n")
    assert ("`herd account" in done.stderr) is hinted
    assert "`herd account" not in done.stdout
    assert done.exit_code == 2
    assert said_then in json.loads(done.stdout)["error"]["message"]
    assert cli.money() == before


@pytest.mark.parametrize(("content", "why"), [(b"\xff\n", "UTF-8"), (b"x" * 2**23, "bytes")])
def test_what_is_no_line_is_refused(cli, content, why):
    done = cli.run("chat", stdin=content)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert why in done.stderr


def test_a_turn_that_fails_is_told_with_its_receipt(cli, worker):
    worker.replies = ["One", lambda job: worker.fail(job, permanent=True)]
    done = cli.run("chat", "--json", stdin="Hi\nAgain\nNever\n")
    assert done.exit_code == 1
    _, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (second["turn"], second["error"]["code"]) == (2, "order_failed")
    assert (second["receipt"]["state"], second["receipt"]["charged"]) == ("failed", 0)


def test_the_oldest_turns_are_forgotten_when_the_herd_refuses_the_length(cli, worker):
    def too_long(job: Any) -> None:
        worker.fail(
            job,
            permanent=True,
            code="prompt_too_long",
            data={"prompt_tokens": 110, "tokens": 28, "context": 128},
        )

    worker.replies = ["one " * 10, "two " * 10, "three " * 5, too_long, "four"]
    done = cli.run("chat", "-n", "28", "--json", stdin="a\nb\nc\nd\n")
    assert done.exit_code == 0, done.output
    assert "1 turn is forgotten" in done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["turn"], last["text"], last["forgotten"]) == (4, "four", 1)
    assert said(worker.jobs[-1])[0] == "user: b"
    assert last["total"] == sum(one["charged"] for one in cli.json("orders")["orders"])


def test_what_is_too_long_by_itself_is_told(cli, worker):
    worker.replies = ["One"]
    done = cli.run("chat", stdin=f"Hi\n{'x' * 70_000}\n")
    assert done.exit_code == 2
    assert "1 turn is forgotten" in done.stderr
    assert "at most 65536 are allowed" in done.stderr


def test_more_turns_than_a_herd_takes_are_forgotten(cli, worker):
    worker.replies = ["ok"] * 130
    done = cli.run("chat", "-n", "1", stdin="Hi\n" * 130)
    assert done.exit_code == 0, done.stderr[-500:]
    assert "turn is forgotten" in done.stderr
    assert max(len(job.messages) for job in worker.jobs) == 255


def test_an_answer_that_began_again_is_kept_as_it_ended(cli, worker, monkeypatch):
    worker.replies = ["so it is", "yes"]
    pieces = iter([["so it w", StreamRestarted("o", 7)], ["so it is"], ["yes"]])

    def stream(*_: object) -> Iterator[str]:
        for piece in next(pieces):
            if isinstance(piece, Exception):
                raise piece
            yield piece

    monkeypatch.setattr(LocalHerd, "stream", stream)
    done = cli.run("chat", stdin="Hi\nReally?\n")
    assert (done.exit_code, done.stdout) == (0, "so it w\nso it is\nyes\n")
    assert "starts again" in done.stderr
    assert said(worker.jobs[-1])[1] == "assistant: so it is"


def test_ctrl_c_while_an_order_is_taken_cancels_it(cli, monkeypatch):
    """It is kept until the order is known: one that nobody knows of would go on and be paid."""
    real = LocalHerd.submit

    def submit(herd: LocalHerd, *given: Any, **call: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return real(herd, *given, **call)

    monkeypatch.setattr(LocalHerd, "submit", submit)
    before = signal.getsignal(signal.SIGINT)
    done = cli.run("chat", "--json", stdin="Hi\nAgain\n")
    assert signal.getsignal(signal.SIGINT) is before
    assert done.exit_code == 130
    turn = json.loads(done.stdout)
    assert (turn["interrupted"], turn["charged"], turn["text"]) == (True, 0, "")
    (order,) = cli.json("orders")["orders"]
    assert (order["order"], order["state"]) == (turn["order"], "cancelled")


def test_a_second_ctrl_c_counts_at_once(cli, monkeypatch):
    def submit(*_: object, **__: object) -> Any:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one ends it")

    monkeypatch.setattr(LocalHerd, "submit", submit)
    done = cli.run("chat", stdin="Hi\nAgain\n")
    assert (done.exit_code, done.stdout) == (130, "")
    assert "`herd orders` shows whether the order was accepted" in done.stderr


def test_a_refusal_that_says_nothing_of_length_forgets_nothing(cli, worker, monkeypatch):
    worker.replies = ["One"]
    cli.run("chat", stdin="Hi\n")

    def refuse(*_: object, **__: object) -> object:
        raise InvalidPrompt("Not that.")

    monkeypatch.setattr(LocalHerd, "submit", refuse)
    done = cli.run("chat", stdin="Hi\n")
    assert (done.exit_code, done.stderr) == (2, "Not that.\n")
