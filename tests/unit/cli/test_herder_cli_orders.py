"""`herd quote`, `submit`, `orders`, `order`: paid prompts from the command line."""

from __future__ import annotations

import json
import re

import pytest

from herder.errors import StreamRestarted
from herder.local.local_herd import LocalHerd
from herder.store import herd as herd_sql
from tests.unit.cli.herder_cli_support import Cli

KEY = "2f5c0a52-6a0e-4f0c-9d5e-1f0c7c2f3b11"


@pytest.fixture
def cli(house, monkeypatch) -> Cli:
    return Cli(house, monkeypatch)


def test_a_quote_holds_nothing(cli):
    before = cli.money()
    found = cli.json("quote", "two words", "-n", "10", "--multiplier", "1.5")
    assert (found["needed"], found["fee"], found["multiplier"]) == (13, 19, "1.461539")
    assert found["waiting_for_workers"] is True
    assert "needed" in cli.says("quote", "-", "-n", "10", stdin="two words")
    assert cli.money() == before


def test_a_quote_says_what_other_bids_would_buy(cli):
    cli.order("--fee", "26")
    table = cli.says("quote", "two words", "-n", "10").partition("Fee")[2].splitlines()[1:]
    rows = [line.split() for line in table]
    assert ["13", "1", "2", "-"] in rows
    assert ["39", "3", "1", "-"] in rows
    asked = ("quote", "two words", "-n", "10", "--bid", "30", "--bid", "1.5x")
    curve = cli.json(*asked)["curve"]
    assert [(bid["fee"], bid["place"]) for bid in curve] == [(30, 1), (20, 2)]
    assert "fee of 5 winston" in cli.refused("quote", "two words", "-n", "10", "--bid", "5")
    assert "multiplier" in cli.refused("quote", "two words", "-n", "10", "--bid", "onex")


def test_a_quote_binds_the_order_that_names_it(cli):
    words = ("two words", "-n", "10")
    found = cli.json("quote", *words, "--multiplier", "2")
    assert "binding" in cli.says("quote", *words)
    cli.says("model", "set", "stub", "--prompt-fee", "500")
    order = cli.json("submit", *words, "--quote", found["quote"], "--no-wait")
    assert (order["receipt"]["needed"], order["receipt"]["fee"]) == (13, 26)
    other = ("submit", "three more words", "-n", "10", "--quote", found["quote"], "--no-wait")
    assert "words of this quote and of the order differ (2 and 3)" in cli.refused(*other)
    broken = found["quote"][:-9] + "A" * 9
    assert "was changed" in cli.refused("submit", *words, "--quote", broken, "--no-wait")
    house = cli.house
    with house.database.write() as connection:
        herd_sql.revoke_key(connection, house.key.kid, house.now_us)
    named = ("submit", *words, "--quote", found["quote"], "--no-wait")
    assert "not among" in cli.refused(*named)


def test_an_order_is_taken_without_waiting(cli):
    done = cli.run("submit", "two words", "-n", "10", "--fee", "20", "--no-wait")
    assert done.exit_code == 0
    (order,) = done.stdout.split()
    assert "20 winston held" in done.stderr
    receipt = cli.json("order", "show", order)["receipt"]
    assert (receipt["state"], receipt["held"], receipt["words"]) == ("queued", 20, 2)
    assert cli.json("account", "balance")["held"] == 20


def test_the_same_key_is_the_same_order(cli):
    order = cli.order()
    assert cli.order() == order
    assert cli.json("account", "balance")["held"] == 13
    line = cli.refused("submit", "two words", "-n", "11", "--idempotency-key", "key", "--no-wait")
    assert "tokens differs" in line


def test_an_answer_goes_to_stdout_and_its_receipt_to_stderr(cli):
    order = cli.completed("so\x1b[2J it is")
    again = ["submit", "two words", "-n", "10", "--fee", "26", "--idempotency-key", "key"]
    done = cli.run(*again)
    assert done.exit_code == 0
    assert done.stdout == "so\x1b[2J it is\n"  # exact where it is no terminal
    assert done.stderr.count("\n") == 1
    assert "charged 14 of 26 winston, needed 13 x 2, 2 words, 4 of 10 tokens" in done.stderr
    assert order in done.stderr

    result = cli.json(*again)
    assert result["text"] == "so\x1b[2J it is"
    assert result["receipt"]["charged"] == 14
    assert result["receipt"]["returned"] == 12


def test_base_is_a_fee(cli):
    cli.order("--fee", "50")
    assert cli.json("quote", "two words", "-n", "997")["fee"] == 1005  # something waits
    assert cli.json("quote", "two words", "-n", "997", "--fee", "base")["fee"] == 1000
    words = ("submit", "two words", "-n", "997", "--fee", "base", "--no-wait")
    paid = cli.json(*words)["receipt"]
    assert (paid["fee"], paid["needed"], paid["automatic"]) == (1000, 1000, False)


def test_what_the_options_say_reaches_the_order(cli, tmp_path):
    (tmp_path / "turns.json").write_text('[{"role": "user", "content": "Guten Tag, Welt"}]')
    (tmp_path / "rules.gbnf").write_text('root ::= "yes" | "no"')
    order = cli.json(
        *("submit", "-n", "3", "--messages", str(tmp_path / "turns.json"), "--stop", "a"),
        *("--stop", "b", "--grammar", str(tmp_path / "rules.gbnf"), "--temperature", "0"),
        *("--top-p", "0.5", "--top-k", "7", "--min-p", "0.1", "--repeat-penalty", "1.1"),
        *("--frequency-penalty", "-1", "--presence-penalty", "0.5", "--seed", "42"),
        *("--reference", "mine", "--fee", "10", "--multiplier", "2", "--max-fee", "20"),
        *("--account", "default", "--model", "stub", "--no-wait"),
    )
    cli.house.worker()
    job = cli.house.dispatched()
    assert [turn.content for turn in job.messages] == ["Guten Tag, Welt"]
    assert job.stop == ("a", "b")
    sampling = job.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0, 0.5, 7)
    assert sampling.min_p == 0.1
    assert (sampling.repeat_penalty, sampling.frequency_penalty) == (1.1, -1)
    assert (sampling.presence_penalty, sampling.seed) == (0.5, 42)
    assert sampling.grammar == 'root ::= "yes" | "no"'
    assert (order["reference"], order["receipt"]["fee"]) == ("mine", 20)


def test_an_order_that_did_not_complete_ends_with_1(cli):
    cli.order()
    worker = cli.house.worker()
    worker.fail(cli.house.dispatched(), permanent=True)
    words = ["submit", "two words", "-n", "10", "--idempotency-key", "key"]
    done = cli.run(*words)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "It went wrong." in done.stderr
    assert done.stderr.count("\n") == 1
    done = cli.run(*words, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["receipt"]["state"] == "failed"


def test_it_says_that_it_waits_for_workers_and_that_ctrl_c_ends_nothing(cli, monkeypatch):
    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalHerd, "stream", interrupted)
    monkeypatch.setattr(LocalHerd, "result", interrupted)
    for more in ([], ["--json"]):
        done = cli.run("submit", "two words", "-n", "10", *more)
        assert (done.exit_code, done.stdout) == (130, "")
        taken, waits, goes_on = done.stderr.splitlines()
        assert re.fullmatch(r"Order [0-9a-f-]{36} is queued\.", taken)
        assert "is waiting for workers" in waits
        assert "continues; `herd order show" in goes_on
    assert {one["state"] for one in cli.json("orders")["orders"]} == {"queued"}

    worker = cli.house.worker(slots=1)
    assert worker.name
    done = cli.run("submit", "two words", "-n", "10")
    assert "is waiting for workers" not in done.stderr


def test_a_text_that_began_again_is_shown_again(cli, monkeypatch):
    order = cli.completed()
    texts = iter([["so it w", StreamRestarted(order, 7)], ["so it", " is"]])

    def stream(*_: object) -> object:
        for piece in next(texts):
            if isinstance(piece, Exception):
                raise piece
            yield piece

    monkeypatch.setattr(LocalHerd, "stream", stream)
    done = cli.run("submit", "two words", "-n", "10", "--fee", "26", "--idempotency-key", "key")
    assert (done.exit_code, done.stdout) == (0, "so it w\nso it is\n")
    assert "starts again" in done.stderr


SUBMIT = ["submit", "two words", "-n", "10", "--no-wait"]


@pytest.mark.parametrize(
    "tokens", ["-5", "0", "1.5", "1e3", "1e400", "NaN", "inf", "ten", "", "9" * 40, "9999999999"]
)
def test_what_is_no_count_of_tokens_is_refused(cli, tokens):
    for command in (["submit", "hi", "--no-wait"], ["quote", "hi"]):
        assert "tokens must be a whole number" in cli.refused(*command, "-n", tokens)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--fee", "12"], "at least 13"),
        (["--fee", "-3"], "fee must be"),
        (["--fee", "bases"], 'or "base", not bases'),
        (["--max-fee", "base"], "max_fee must be"),
        (["--fee", "1.5"], "fee must be"),
        (["--fee", "NaN"], "fee must be"),
        (["--fee", "1e400"], "fee must be"),
        (["--max-fee", "x"], "max_fee must be"),
        (["--max-fee", "12"], "max_fee of 12"),
        (["--multiplier", "NaN"], "multiplier must be"),
        (["--multiplier", "inf"], "multiplier must be"),
        (["--multiplier", "-1"], "multiplier must be"),
        (["--multiplier", "0"], "multiplier must be"),
        (["--multiplier", "1e400"], "multiplier must be"),
        (["--multiplier", "much"], "multiplier must be"),
        (["--multiplier", "0.5"], "at least 13"),
        (["--fee", "100001"], "herd account deposit default"),
        (["--account", "nobody"], "nobody"),
        (["--account", "no body"], "letters"),
        (["--model", "gpt"], "gpt"),
        (["--stop", ""], "stop must be"),
        (["--stop", "x" * 1000], "stop must be"),
        ([word for one in range(17) for word in ("--stop", str(one))], "stop must be"),
        (["--temperature", "hot"], "temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--temperature", "-1"], "temperature"),
        (["--top-p", "1.5"], "top_p"),
        (["--top-k", "1.5"], "top_k"),
        (["--min-p", "2"], "min_p"),
        (["--seed", "-1"], "seed"),
        (["--repeat-penalty", "0"], "repeat_penalty"),
        (["--frequency-penalty", "3"], "frequency_penalty"),
        (["--presence-penalty", "x"], "presence_penalty"),
        (["--grammar", "/no/such/file"], "/no/such/file"),
        (["--json-schema", "/"], "cannot be read"),
        (["--messages", "/no/such/file"], "/no/such/file"),
        (["--reference", "x" * 257], "reference"),
        (["--idempotency-key", ""], "idempotency_key"),
        (["--colour", "red"], "No such option"),
    ],
)
def test_what_makes_no_sense_is_refused_before_money_moves(cli, more, said):
    assert said in cli.refused(*SUBMIT, *more)


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (["submit", "", "-n", "1"], None, "empty"),
        (["submit", "-", "-n", "1"], "", "empty"),
        (["submit", "x" * 65_537, "-n", "1"], None, "65537 bytes"),
        (["submit", "-", "-n", "1"], "é" * 40_000, "80000 bytes"),
        (["submit", "-", "-n", "1"], b"\xff\xfe", "UTF-8"),
        (["submit", "\udcff", "-n", "1"], None, "UTF-8"),
        (["submit", "-n", "1"], None, "prompt or messages"),
        (["submit", "hi"], None, "--tokens"),
        (["submit", "hi", "there", "-n", "1"], None, "extra argument"),
        (["order", "show", "nothing"], None, "nothing"),
        (["order", "refund", "nothing", "--reason", "x"], None, "nothing"),
        (["order", "refund", "nothing"], None, "--reason"),
        (["orders", "--state", "lost"], None, "queued"),
        (["orders", "--limit", "-1"], None, "limit"),
        (["orders", "--limit", "9999"], None, "limit"),
        (["orders", "--before", "nothing"], None, "nothing"),
        (["orders", "--account", "nobody"], None, "nobody"),
    ],
)
def test_what_is_no_prompt_or_no_order_is_refused(cli, words, stdin, said):
    assert said in cli.refused(*words, stdin=stdin)


@pytest.mark.parametrize(
    "content", ["", "{}", "null", "[]", "[1]", '[{"role": "king", "content": "x"}]', "[" * 100_000]
)
def test_what_is_no_conversation_is_refused(cli, tmp_path, content):
    (tmp_path / "turns.json").write_text(content)
    cli.refused("submit", "-n", "1", "--messages", str(tmp_path / "turns.json"))


def test_more_tokens_than_the_context_are_refused(cli):
    cli.house.worker(context=64)
    assert "context" in cli.refused("submit", "hi", "-n", "64")


def test_white_space_is_a_prompt(cli):
    assert cli.json("submit", " ", "-n", "1", "--no-wait")["receipt"]["words"] == 0


def test_orders_are_listed_by_pages_and_fit_80_columns(cli, monkeypatch):
    placed = [cli.order(key=str(number)) for number in range(3)]
    first = cli.json("orders", "--limit", "2")
    assert [one["order"] for one in first["orders"]] == [placed[2], placed[1]]
    rest = cli.json("orders", "--before", first["next_before"], "--state", "queued")
    assert [one["order"] for one in rest["orders"]] == [placed[0]]
    assert cli.json("orders", "--state", "failed")["orders"] == []

    cli.order("--fee", "99000", key="dear")
    monkeypatch.setenv("COLUMNS", "80")
    shown = cli.says("orders", "--account", "default")
    assert all(order in shown for order in placed)
    assert max(map(len, shown.splitlines())) <= 80


def test_an_order_shows_its_receipt_or_its_text(cli):
    order = cli.completed()
    shown = cli.says("order", "show", order)
    for fact in ("needed      13", "fee         26", "charged     14", "returned    12"):
        assert fact in shown
    assert "so it is" not in shown
    assert cli.says("order", "show", order, "--text") == "so it is\n"
    assert "text" not in cli.json("order", "show", order)
    assert "reasoning" not in cli.json("order", "show", order)
    assert cli.json("order", "show", order, "--text")["text"] == "so it is"


def test_a_refund_is_given_once_and_never_above_the_charge(cli):
    order = cli.completed()
    refund = ["order", "refund", order, "--reason", "wrong", "--amount", "5", "--id", KEY]
    for _ in range(2):
        done = cli.json(*refund)
        assert (done["id"], done["amount"], done["receipt"]["refunded"]) == (KEY, 5, 5)
    assert cli.json("account", "balance")["available"] == 100_000 - 14 + 5
    for amount in ("10", "0", "-1", "1.5", "NaN", "1e400"):
        cli.refused("order", "refund", order, "--reason", "more", "--amount", amount)
    cli.refused("order", "refund", order, "--reason", "wrong", "--amount", "6", "--id", KEY)
    cli.refused("order", "refund", order, "--reason", " ")
    assert cli.json("order", "refund", order, "--reason", "the rest")["amount"] == 9
    cli.refused("order", "refund", order, "--reason", "again")
    assert "wrong" in cli.says("account", "statement")


def test_an_order_that_waits_has_nothing_to_refund(cli):
    assert "was not charged" in cli.refused("order", "refund", cli.order(), "--reason", "x")


def test_orders_are_listed_by_either_command(cli):
    first, second = cli.order(), cli.order(key="other")
    assert [one["order"] for one in cli.json("orders", "list")["orders"]] == [second, first]
    for words in ((), ("--limit", "1"), ("--before", second), ("--state", "completed")):
        assert cli.json("orders", "list", *words) == cli.json("orders", *words)
    assert first in cli.says("orders", "list")
    assert "state must be one of" in cli.refused("orders", "list", "--state", "lost")


def test_a_new_key_comes_with_how_to_use_it(cli):
    shown = cli.says("key", "create", "default").splitlines()
    assert shown[0].startswith("herd_")
    assert any("HERD_URL=" in line and "HERD_API_KEY=" in line for line in shown)
    assert any("OPENAI_BASE_URL=$HERD_URL/v1" in line for line in shown)
    assert sum(shown[0] in line for line in shown) == 1, "the key itself stands there once"
