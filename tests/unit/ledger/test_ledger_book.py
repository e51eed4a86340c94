"""The contract of every operation: what it does, what it refuses, and what it leaves behind."""

from __future__ import annotations

from dataclasses import astuple
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, event, text

import ledger
from ledger import Balance, Drift, Entry, Ledger, NewTransfer, post_id, void_id
from tests.unit.ledger.ledger_support import (
    Books,
    Clock,
    is_sqlite,
    open_books,
    open_engine,
    run,
    uid,
)

MISSING = uid("never written")


@pytest.fixture
def books(new_url) -> Books:
    return open_books(new_url())


@pytest.fixture
def file(tmp_path) -> Books:
    """Books on SQLite, for what only SQLite has."""
    return open_books(f"sqlite:///{tmp_path}/books.db")


def test_a_deposit_arrives_and_a_withdrawal_leaves(books):
    with books.begin() as conn:
        deposit = books.book.deposit(conn, uid("d"), "ada", 500, {"source": "card"})
        books.book.withdraw(conn, uid("w"), "ada", 1_200)
        assert books.book.get_balance(conn, "ada") == Balance(300, 0, 300)
        assert books.book.get_balance(conn, "outside") == Balance(-1_300, 0, -1_300)
        assert (deposit.kind, deposit.debit, deposit.credit) == ("direct", "outside", "ada")
        assert deposit.tags == {"source": "card"}
        assert books.book.get_transfer(conn, uid("d")) == deposit


def test_a_hold_reserves_and_its_post_takes_a_part_and_releases_the_rest(books):
    with books.begin() as conn:
        hold = books.book.hold(conn, uid("h"), "ada", "revenue", 400)
        assert books.book.get_balance(conn, "ada") == Balance(1_000, 400, 600)
        assert books.book.get_balance(conn, "revenue") == Balance(0, 0, 0)  # not its own yet
        post = books.book.post(conn, hold.id, 150)
        assert books.book.get_balance(conn, "ada") == Balance(850, 0, 850)
        assert books.book.get_balance(conn, "revenue") == Balance(150, 0, 150)
        assert (post.id, post.hold_id, post.held, post.amount) == (
            post_id(hold.id),
            hold.id,
            400,
            150,
        )


def test_a_post_without_an_amount_takes_the_whole_hold(books):
    hold = books.held(400)
    with books.begin() as conn:
        assert books.book.post(conn, hold.id).amount == 400
        assert books.book.get_balance(conn, "revenue").posted == 400


def test_a_void_releases_everything(books):
    hold = books.held(400)
    with books.begin() as conn:
        void = books.book.void(conn, hold.id, {"reason": "cancelled"})
        assert (void.id, void.amount) == (void_id(hold.id), 400)
        assert void.tags == {"order": "h", "reason": "cancelled"}  # the hold's, and its own over it
        assert books.book.get_balance(conn, "ada") == Balance(1_000, 0, 1_000)
        account = books.book.get_account(conn, "revenue")
        assert (account.credits_pending, account.credits_posted) == (0, 0)


def test_refunds_give_back_up_to_the_amount_and_no_further(books):
    hold = books.held(400)
    with books.begin() as conn:
        post = books.book.post(conn, hold.id, 300)
        first = books.book.refund(conn, uid("r1"), post.id, 100, {"reason": "late"})
        assert (first.debit, first.credit, first.reverses_id) == ("revenue", "ada", post.id)
        assert first.tags == {"order": "h", "reason": "late"}
        with pytest.raises(ledger.ExceedsRefundable) as refused:
            books.book.refund(conn, uid("r2"), post.id, 201)
        assert refused.value.data == {
            "transfer_id": post.id,
            "refundable": 200,
            "required": 201,
        }
        assert books.book.refund(conn, uid("r2"), post.id).amount == 200  # all that is left
        with pytest.raises(ledger.ExceedsRefundable):
            books.book.refund(conn, uid("r3"), post.id)
        assert books.book.get_balance(conn, "ada").available == 1_000


def test_a_refund_needs_money_where_it_comes_from(books):
    with books.begin() as conn:
        paid = books.book.transfer(conn, uid("t"), "ada", "bob", 800)
        books.book.withdraw(conn, uid("w"), "bob", 1_500)
        with pytest.raises(ledger.InsufficientFunds) as refused:
            books.book.refund(conn, uid("r"), paid.id)
        assert refused.value.data == {"account": "bob", "available": 300, "required": 800}


def test_only_what_moved_money_is_refunded(books):
    hold = books.held(100)
    with books.begin() as conn:
        for transfer in (hold, books.book.void(conn, hold.id)):
            with pytest.raises(ledger.NotRefundable, match=transfer.kind):
                books.book.refund(conn, uid("r"), transfer.id)
        refund = books.book.refund(conn, uid("r"), uid("fund", "bob"), 10)
        with pytest.raises(ledger.NotRefundable, match="refund"):
            books.book.refund(conn, uid("r2"), refund.id)
        with pytest.raises(ledger.TransferNotFound):
            books.book.refund(conn, uid("r2"), MISSING)


def test_too_little_money_says_how_much_there_is(books):
    books.held(400)
    with books.begin() as conn:
        for attempt in (books.book.hold, books.book.transfer):
            with pytest.raises(ledger.InsufficientFunds) as refused:
                attempt(conn, uid("t"), "ada", "revenue", 601)
            assert refused.value.data == {"account": "ada", "available": 600, "required": 601}
        assert books.book.hold(conn, uid("t"), "ada", "revenue", 600).amount == 600


def test_a_refused_hold_leaves_no_trace_and_the_same_id_works_after_a_deposit(books):
    with books.begin() as conn, pytest.raises(ledger.InsufficientFunds):
        books.book.hold(conn, uid("t"), "ada", "revenue", 1_500)
    with books.begin() as conn:
        with pytest.raises(ledger.TransferNotFound):
            books.book.get_transfer(conn, uid("t"))
        books.book.deposit(conn, uid("d"), "ada", 500)
        assert not books.book.hold(conn, uid("t"), "ada", "revenue", 1_500).replayed


def test_accounts_are_created_once(books):
    with books.begin() as conn:
        made = books.book.create_account(conn, "client:日本", "client")
        assert books.book.get_account(conn, "client:日本") == made
        with pytest.raises(ledger.AccountExists):
            books.book.create_account(conn, "client:日本", "client")


def test_unknown_accounts_are_named_whichever_side_they_stand_on(books):
    with books.begin() as conn:
        for debit, credit in (("nobody", "ada"), ("ada", "nobody")):
            with pytest.raises(ledger.AccountNotFound, match="nobody"):
                books.book.transfer(conn, uid("t"), debit, credit, 1)
        for call in (books.book.get_account, books.book.get_balance, books.book.list_entries):
            with pytest.raises(ledger.AccountNotFound, match="nobody"):
                call(conn, "nobody")


@pytest.mark.parametrize("amount", [0, -1, 2**53, True, 1.0, "1", None])
def test_amounts_are_integers_within_bounds(books, amount):
    hold = books.held(10)
    with books.begin() as conn:
        for call in (books.book.transfer, books.book.hold):
            with pytest.raises(ledger.InvalidAmount):
                call(conn, uid("t"), "ada", "bob", amount)
        with pytest.raises(ledger.InvalidAmount):
            books.book.deposit(conn, uid("t"), "ada", amount)
        if amount is not None:  # which means "all of it" to these two
            with pytest.raises(ledger.InvalidAmount):
                books.book.post(conn, hold.id, amount)
            with pytest.raises(ledger.InvalidAmount):
                books.book.refund(conn, uid("r"), uid("fund", "ada"), amount)


def test_the_largest_amount_is_kept_exactly(books):
    with books.begin() as conn:
        books.book.deposit(conn, uid("d"), "ada", 2**53 - 1)
        assert books.book.get_balance(conn, "ada").posted == 2**53 + 999


def test_lifetime_totals_stop_before_they_leave_64_bits(books):
    with books.begin() as conn:
        run(conn, "UPDATE ledger_account SET credits_posted = ? WHERE id = 'ada'", 2**62 - 10)
        with pytest.raises(ledger.BalanceOutOfRange):
            books.book.deposit(conn, uid("d"), "ada", 10)
        assert books.book.deposit(conn, uid("d"), "ada", 9)


@pytest.mark.parametrize(
    "wrong", ["", "x", uid("a").upper(), uid("a").replace("-", ""), uid("a") + "\n", None, 7]
)
def test_transfer_ids_are_uuids_in_one_spelling(books, wrong):
    with books.begin() as conn:
        for call in (
            lambda: books.book.deposit(conn, wrong, "ada", 1),
            lambda: books.book.post(conn, wrong),
            lambda: books.book.void(conn, wrong),
            lambda: books.book.refund(conn, wrong, uid("fund", "ada")),
            lambda: books.book.get_transfer(conn, wrong),
        ):
            with pytest.raises(ledger.InvalidTransferId):
                call()


@pytest.mark.parametrize("wrong", ["", "a\nb", "a" * 201, "\ud800", None])
def test_account_ids_are_short_and_printable(books, wrong):
    with books.begin() as conn:
        for call in (
            lambda: books.book.create_account(conn, wrong, "client"),
            lambda: books.book.create_account(conn, "x", wrong),
            lambda: books.book.get_balance(conn, wrong),
            lambda: books.book.deposit(conn, uid("d"), wrong, 1),
        ):
            with pytest.raises(ledger.InvalidAccountId):
                call()


@pytest.mark.parametrize("wrong", [{"a": 1}, {1: "a"}, {"a": "x" * 4_090}])
def test_tags_are_strings_and_bounded(books, wrong):
    with books.begin() as conn, pytest.raises(ledger.InvalidTags):
        books.book.deposit(conn, uid("d"), "ada", 1, wrong)


def test_nobody_pays_himself(books):
    with books.begin() as conn, pytest.raises(ledger.SameAccount):
        books.book.transfer(conn, uid("t"), "ada", "ada", 1)


# Idempotency


def test_the_same_call_again_gives_the_first_transfer_back(books):
    hold = books.held(400)
    for _ in range(2):
        with books.begin() as conn:
            calls = [
                lambda: books.book.deposit(conn, uid("d"), "ada", 5, {"a": "b"}),
                lambda: books.book.withdraw(conn, uid("w"), "ada", 5),
                lambda: books.book.transfer(conn, uid("t"), "ada", "bob", 5),
                lambda: books.book.hold(conn, uid("h2"), "ada", "revenue", 5),
                lambda: books.book.post(conn, hold.id, 50),
                lambda: books.book.void(conn, uid("h2")),
                lambda: books.book.refund(conn, uid("r"), post_id(hold.id)),
            ]
            firsts = [call() for call in calls]
            seconds = [call() for call in calls]
            assert firsts == seconds
            assert all(second.replayed for second in seconds)
    with books.begin() as conn:
        assert books.book.get_balance(conn, "ada") == Balance(995, 0, 995)
        assert books.book.audit(conn).clean


def test_a_replay_needs_no_money(books):
    with books.begin() as conn:
        books.book.transfer(conn, uid("t"), "ada", "bob", 1_000)
        assert books.book.transfer(conn, uid("t"), "ada", "bob", 1_000).replayed


def test_another_request_under_the_same_id_names_the_field(books):
    hold = books.held(400)
    with books.begin() as conn:
        book = books.book
        book.transfer(conn, uid("t"), "ada", "bob", 5, {"a": "b"})
        book.post(conn, hold.id, 50)
        book.refund(conn, uid("r"), post_id(hold.id), 20)
        conflicts = {
            "kind": lambda: book.hold(conn, uid("t"), "ada", "bob", 5, {"a": "b"}),
            "debit": lambda: book.transfer(conn, uid("t"), "outside", "bob", 5, {"a": "b"}),
            "credit": lambda: book.transfer(conn, uid("t"), "ada", "revenue", 5, {"a": "b"}),
            "amount": lambda: book.transfer(conn, uid("t"), "ada", "bob", 6, {"a": "b"}),
            "tags": lambda: book.transfer(conn, uid("t"), "ada", "bob", 5, {"a": "c"}),
            "reverses_id": lambda: book.transfer(
                conn, uid("r"), "revenue", "ada", 20, {"order": "h"}
            ),
        }
        for field, call in conflicts.items():
            with pytest.raises(ledger.IdempotencyConflict) as refused:
                call()
            assert refused.value.field == field
        for call in (
            lambda: book.post(conn, hold.id, 51),
            lambda: book.post(conn, hold.id),
            lambda: book.refund(conn, uid("r"), post_id(hold.id), 21),
        ):
            with pytest.raises(ledger.IdempotencyConflict, match="amount"):
                call()
        assert book.audit(conn).clean


def test_the_whole_by_name_and_by_amount_is_the_same_request(books):
    hold = books.held(400)
    with books.begin() as conn:
        books.book.post(conn, hold.id)
        assert books.book.post(conn, hold.id, 400).replayed
        first = books.book.refund(conn, uid("r"), post_id(hold.id))
        books.book.deposit(conn, uid("d"), "ada", 5)
        assert books.book.refund(conn, uid("r"), post_id(hold.id), 400) == first
        assert books.book.refund(conn, uid("r"), post_id(hold.id)).replayed


def test_a_hold_is_resolved_once(books):
    posted, voided = books.held(100, "p"), books.held(100, "v")
    with books.begin() as conn:
        books.book.post(conn, posted.id, 60)
        books.book.void(conn, voided.id)
        with pytest.raises(ledger.HoldAlreadyPosted) as refused:
            books.book.void(conn, posted.id)
        assert refused.value.data == {"hold_id": posted.id, "resolved_by": post_id(posted.id)}
        with pytest.raises(ledger.HoldAlreadyVoided) as refused_too:
            books.book.post(conn, voided.id)
        assert refused_too.value.data == {"hold_id": voided.id, "resolved_by": void_id(voided.id)}


def test_only_holds_are_posted_or_voided(books):
    with books.begin() as conn:
        for call in (books.book.post, books.book.void):
            with pytest.raises(ledger.TransferNotFound):
                call(conn, MISSING)
            with pytest.raises(ledger.NotAHold):
                call(conn, uid("fund", "ada"))


def test_no_more_is_posted_than_was_held(books):
    hold = books.held(100)
    with books.begin() as conn:
        with pytest.raises(ledger.ExceedsHoldAmount) as refused:
            books.book.post(conn, hold.id, 101)
        assert refused.value.data == {"hold_id": hold.id, "held": 100, "required": 101}
        assert books.book.post(conn, hold.id, 100)


# Batches


def test_batches_do_what_single_calls_do(books):
    with books.begin() as conn:
        book = books.book
        made = book.transfer_many(
            conn, [NewTransfer(uid("t", n), "ada", "bob", n, {"n": str(n)}) for n in range(1, 11)]
        )
        assert made == [book.get_transfer(conn, uid("t", n)) for n in range(1, 11)]
        holds = [book.hold(conn, uid("h", n), "bob", "revenue", 10) for n in range(10)]
        posts = book.post_many(conn, [(h.id, n + 1) for n, h in enumerate(holds[:6])])
        assert [(p.hold_id, p.amount) for p in posts] == [
            (h.id, n + 1) for n, h in enumerate(holds[:6])
        ]
        assert [v.hold_id for v in book.void_many(conn, [h.id for h in holds[6:]])] == [
            h.id for h in holds[6:]
        ]
        assert book.get_balance(conn, "bob") == Balance(1_034, 0, 1_034)
        assert book.audit(conn).clean
        assert book.post_many(conn, []) == book.transfer_many(conn, []) == []


def test_a_batch_with_some_done_before_replays_those(books):
    holds = [books.held(10, f"h{n}") for n in range(3)]
    with books.begin() as conn:
        books.book.post(conn, holds[1].id, 7)
        posts = books.book.post_many(conn, [(h.id, 7) for h in holds] + [(holds[0].id, 7)])
        assert [p.replayed for p in posts] == [False, True, False, True]
        assert books.book.get_balance(conn, "revenue").posted == 21


def test_a_batch_is_all_or_nothing_and_names_the_first_that_is_refused(books):
    holds = [books.held(10, f"h{n}") for n in range(3)]
    with books.begin() as conn:
        books.book.void(conn, holds[2].id)
        with pytest.raises(ledger.HoldAlreadyVoided) as refused:
            books.book.post_many(conn, [(h.id, None) for h in holds])
        assert refused.value.hold_id == holds[2].id
        assert books.book.get_balance(conn, "ada").pending == 20
        with pytest.raises(ledger.InsufficientFunds) as poor:
            books.book.transfer_many(
                conn,
                [
                    NewTransfer(uid("t1"), "ada", "bob", 500),
                    NewTransfer(uid("t2"), "ada", "bob", 500),
                ],
            )
        assert poor.value.data == {"account": "ada", "available": 480, "required": 500}
    with books.begin() as conn:
        assert books.book.get_balance(conn, "ada") == Balance(1_000, 20, 980)
        assert books.book.audit(conn).clean


def test_batches_are_bounded(books):
    hold = books.held(10)
    with books.begin() as conn:
        for call in (
            lambda: books.book.post_many(conn, [(hold.id, 1)] * 1_001),
            lambda: books.book.void_many(conn, [hold.id] * 1_001),
            lambda: books.book.transfer_many(conn, [NewTransfer(uid("t"), "a", "b", 1)] * 1_001),
        ):
            with pytest.raises(ledger.BatchTooLarge):
                call()
        thousand = [NewTransfer(uid("t", n), "outside", "bob", 1) for n in range(1_000)]
        assert len(books.book.transfer_many(conn, thousand)) == 1_000


# The caller's transaction


def test_what_the_caller_rolls_back_never_was(books):
    before = books.available("ada")
    conn = books.engine.connect()
    conn.begin()
    hold = books.book.hold(conn, uid("h"), "ada", "revenue", 100)
    books.book.post_many(conn, [(hold.id, 5)])
    conn.rollback()
    assert books.available("ada") == before
    with books.begin() as conn, pytest.raises(ledger.TransferNotFound):
        books.book.get_transfer(conn, hold.id)


def test_the_ledger_never_commits(books):
    watcher = open_engine(books.url).connect()
    conn = books.engine.connect()
    conn.begin()
    books.book.transfer_many(conn, [NewTransfer(uid("t", n), "ada", "bob", 1) for n in range(5)])
    with pytest.raises(ledger.InsufficientFunds):
        books.book.hold(conn, uid("h"), "ada", "revenue", 10_000)
    driver = watcher.connection.dbapi_connection
    assert driver.execute("SELECT count(*) FROM ledger_transfer").fetchone() == (2,)
    assert conn.in_transaction()
    conn.commit()
    assert driver.execute("SELECT count(*) FROM ledger_transfer").fetchone() == (7,)


def test_a_refusal_leaves_the_callers_transaction_usable(books):
    with books.begin() as conn:
        conn.execute(text("CREATE TABLE orders (id TEXT)"))
        conn.execute(text("INSERT INTO orders VALUES ('before')"))
        with pytest.raises(ledger.InsufficientFunds):
            books.book.hold(conn, uid("h"), "ada", "revenue", 10_000)
        with pytest.raises(ledger.InsufficientFunds):
            books.book.transfer_many(
                conn, [NewTransfer(uid("t", n), "ada", "bob", 600) for n in range(2)]
            )
        conn.execute(text("INSERT INTO orders VALUES ('after')"))
    with books.begin() as conn:
        assert conn.execute(text("SELECT id FROM orders")).scalars().all() == ["before", "after"]
        assert books.book.audit(conn).transfers == 2


def test_the_callers_own_savepoints_nest_with_the_ledgers(books):
    with books.begin() as conn:
        savepoint = conn.begin_nested()
        books.book.transfer_many(
            conn, [NewTransfer(uid("t", n), "ada", "bob", 1) for n in range(3)]
        )
        savepoint.rollback()
        books.book.transfer(conn, uid("t", 0), "ada", "bob", 5)
    assert books.available("ada") == 995


def test_a_busy_database_is_told_from_a_lack_of_funds(books):
    impatient = open_engine(books.url, timeout_s=0)
    with books.begin() as conn:
        books.book.deposit(conn, uid("d"), "ada", 1)
        with impatient.connect() as other, pytest.raises(ledger.LedgerBusy) as refused:
            books.book.deposit(other, uid("d2"), "ada", 1)
    assert refused.value.retryable
    assert not ledger.InsufficientFunds.retryable


@pytest.mark.parametrize("missing", ["foreign_keys", "recursive_triggers"])
def test_a_connection_that_would_not_enforce_the_rules_is_refused(file, missing):
    with open_engine(file.url).connect() as conn:
        conn.connection.dbapi_connection.execute(f"PRAGMA {missing}=OFF")
        with pytest.raises(ledger.LedgerMisconfigured, match=missing):
            file.book.deposit(conn, uid("d"), "ada", 1)


def test_a_connection_that_would_commit_by_itself_is_refused(file):
    loose = create_engine(file.url)

    @event.listens_for(loose, "connect")
    def _configure(driver, _record):
        driver.isolation_level = None
        for pragma in ledger.SQLITE_PRAGMAS:
            driver.execute(pragma)

    with loose.connect() as conn, pytest.raises(ledger.LedgerMisconfigured, match="BEGIN"):
        file.book.deposit(conn, uid("d"), "ada", 1)


def test_a_failing_database_is_no_refusal(books, new_url):
    with books.begin() as conn, pytest.raises(ledger.LedgerFault, match="already exists"):
        ledger.create_schema(conn)
    empty = open_engine(new_url())
    said = "no such table" if is_sqlite(books.url) else "does not exist"
    with empty.begin() as conn, pytest.raises(ledger.LedgerFault, match=said):
        books.book.deposit(conn, uid("d"), "ada", 1)


def test_other_databases_are_refused_until_they_are_known(books):
    stranger = SimpleNamespace(dialect=SimpleNamespace(name="mysql"), info={})
    with pytest.raises(ledger.LedgerMisconfigured, match="mysql"):
        books.book.deposit(stranger, uid("d"), "ada", 1)


# Reading


def test_the_statement_is_signed_and_adds_up(books):
    hold, gone = books.held(400, "h"), books.held(50, "g")
    with books.begin() as conn:
        book = books.book
        book.post(conn, hold.id, 150)
        book.void(conn, gone.id)
        refund = book.refund(conn, uid("r"), post_id(hold.id), 20)
        entries = book.list_entries(conn, "ada")
        assert [(e.kind, e.counterparty, e.amount, e.pending) for e in entries] == [
            ("direct", "outside", 1_000, 0),
            ("pending", "revenue", 0, 400),
            ("pending", "revenue", 0, 50),
            ("post", "revenue", -150, -400),
            ("void", "revenue", 0, -50),
            ("direct", "revenue", 20, 0),
        ]
        last = entries[-1]
        assert last == Entry(
            last.seq, refund.id, "direct", "revenue", 20, 0, None, post_id(hold.id),
            {"order": "h"}, refund.at_us,
        )  # fmt: skip
        assert entries[3].hold_id == hold.id
        for account in ("ada", "bob", "revenue", "outside"):
            lines = book.list_entries(conn, account)
            balance = book.get_balance(conn, account)
            assert sum(e.amount for e in lines) == balance.posted
            assert sum(e.pending for e in lines) == balance.pending


def test_the_statement_comes_in_pages(books):
    with books.begin() as conn:
        for n in range(25):
            books.book.transfer(conn, uid("t", n), *(("ada", "bob"), ("bob", "ada"))[n % 2], n + 1)
        whole = books.book.list_entries(conn, "bob")
        pages, after = [], 0
        while page := books.book.list_entries(conn, "bob", after, limit=7):
            pages += page
            after = page[-1].seq
        assert pages == whole
        assert len(whole) == 26


@pytest.mark.parametrize("page", [(0, 0), (0, 1_001), (-1, 1), (2**63, 1), (0, True), (1.0, 1)])
def test_pages_are_bounded(books, page):
    with books.begin() as conn, pytest.raises(ledger.InvalidPage):
        books.book.list_entries(conn, "ada", *page)


def test_the_audit_counts_what_there_is(books):
    hold = books.held(400)
    with books.begin() as conn:
        report = books.book.audit(conn)
        assert report.clean
        assert report.drifts == ()
        assert all(type(figure) is int for figure in astuple(report)[:-1])
        assert (report.accounts, report.transfers, report.open_holds) == (4, 3, 1)
        assert (report.circulating, report.outside, report.held) == (2_000, -2_000, 400)
        books.book.void(conn, hold.id)
        run(conn, "UPDATE ledger_account SET credits_posted = 1007 WHERE id = 'bob'")
        assert set(books.book.audit(conn).drifts) == {
            Drift("credits_posted", "bob", 1_000, 1_007),
            Drift("conservation", "all accounts", 0, 7),
        }


def test_time_is_the_callers(books):
    late = Ledger(clock=lambda: 7_000_000_000)
    with books.begin() as conn:
        assert late.deposit(conn, uid("d"), "ada", 1).at_us == 7_000_000_000
        assert late.create_account(conn, "new", "client").created_us == 7_000_000_000
        assert Clock()() == 1_000_000
