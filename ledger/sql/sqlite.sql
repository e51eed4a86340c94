-- The ledger's tables on SQLite (3.37 or later, for STRICT).
--
-- Inserting a transfer is the only write that the ledger makes: triggers apply the balances, and
-- what must never happen is refused here, whoever asks. Every constraint has a name, because
-- ledger/border.py turns names into errors. SQLite reports a CHECK and a trigger by name, a
-- UNIQUE by its columns and a foreign key by nothing at all; ledger/sqlite.py knows.
--
-- A connection must have foreign_keys=ON (SQLite's default is off) and recursive_triggers=ON
-- (else INSERT OR REPLACE deletes a transfer without asking the trigger that refuses it).
-- ledger/sqlite.py checks both before the first statement.
--
-- Amounts are winston. An account's balance is credits_posted - debits_posted; of that,
-- debits_pending is held. 9007199254740991 is 2^53 - 1, the largest integer that every JSON reader
-- keeps exact; 4611686018427387903 is 2^62 - 1, so that a counter plus an amount stays an integer.

CREATE TABLE ledger_account (
    id              TEXT    NOT NULL,
    kind            TEXT    NOT NULL,
    allow_overdraft INTEGER NOT NULL,
    debits_posted   INTEGER NOT NULL DEFAULT 0,
    credits_posted  INTEGER NOT NULL DEFAULT 0,
    debits_pending  INTEGER NOT NULL DEFAULT 0,
    credits_pending INTEGER NOT NULL DEFAULT 0,
    created_us      INTEGER NOT NULL,

    CONSTRAINT ledger_account_id_key PRIMARY KEY (id),
    CONSTRAINT ledger_account_id_length CHECK (length(id) BETWEEN 1 AND 200),
    CONSTRAINT ledger_account_kind_length CHECK (length(kind) BETWEEN 1 AND 64),
    CONSTRAINT ledger_account_allow_overdraft_flag CHECK (allow_overdraft IN (0, 1)),

    -- The rule: what is spent and what is held never exceed what came in.
    CONSTRAINT ledger_account_no_overdraft CHECK (
        allow_overdraft = 1 OR debits_posted + debits_pending <= credits_posted
    ),

    CONSTRAINT ledger_account_debits_posted_range
        CHECK (debits_posted BETWEEN 0 AND 4611686018427387903),
    CONSTRAINT ledger_account_credits_posted_range
        CHECK (credits_posted BETWEEN 0 AND 4611686018427387903),
    CONSTRAINT ledger_account_debits_pending_range
        CHECK (debits_pending BETWEEN 0 AND 4611686018427387903),
    CONSTRAINT ledger_account_credits_pending_range
        CHECK (credits_pending BETWEEN 0 AND 4611686018427387903)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger_transfer (
    seq             INTEGER NOT NULL,  -- order of the statement; rises, and on SQLite has no gaps
    id              TEXT    NOT NULL,  -- a UUID, and the idempotency key, for ever
    kind            TEXT    NOT NULL,
    debit           TEXT    NOT NULL,  -- the account that pays
    credit          TEXT    NOT NULL,  -- the account that receives
    amount          INTEGER NOT NULL,
    fingerprint     TEXT    NOT NULL,  -- what was asked under this id: ledger/requests.py
    pending_id      TEXT,              -- post and void: the hold that it resolves
    pending_amount  INTEGER,           -- post and void: the whole amount of that hold, released
    reverses_id     TEXT,              -- refund: the transfer that it gives back
    tags            TEXT    NOT NULL,  -- a JSON object of strings
    at_us           INTEGER NOT NULL,  -- the caller's clock: microseconds since 1970, UTC

    CONSTRAINT ledger_transfer_seq_key PRIMARY KEY (seq),
    CONSTRAINT ledger_transfer_id_key UNIQUE (id),
    CONSTRAINT ledger_transfer_id_length CHECK (length(id) = 36),
    CONSTRAINT ledger_transfer_kind_known CHECK (kind IN ('direct', 'pending', 'post', 'void')),
    CONSTRAINT ledger_transfer_two_accounts CHECK (debit <> credit),
    CONSTRAINT ledger_transfer_amount_range CHECK (amount BETWEEN 1 AND 9007199254740991),
    CONSTRAINT ledger_transfer_tags_length CHECK (length(tags) BETWEEN 2 AND 4096),

    -- A post or a void names a hold; nothing else does.
    CONSTRAINT ledger_transfer_pending_shape CHECK (
        CASE WHEN kind IN ('post', 'void')
            THEN pending_id IS NOT NULL AND pending_amount IS NOT NULL
            ELSE pending_id IS NULL AND pending_amount IS NULL
        END
    ),
    CONSTRAINT ledger_transfer_post_within_hold
        CHECK (pending_amount IS NULL OR amount <= pending_amount),
    CONSTRAINT ledger_transfer_void_whole CHECK (kind <> 'void' OR amount = pending_amount),
    CONSTRAINT ledger_transfer_refund_direct CHECK (reverses_id IS NULL OR kind = 'direct'),

    CONSTRAINT ledger_transfer_debit_fk FOREIGN KEY (debit) REFERENCES ledger_account (id),
    CONSTRAINT ledger_transfer_credit_fk FOREIGN KEY (credit) REFERENCES ledger_account (id)
) STRICT;

-- A hold is resolved once: one post or one void. Partial, since most rows resolve nothing.
CREATE UNIQUE INDEX ledger_transfer_pending_id_key ON ledger_transfer (pending_id)
    WHERE pending_id IS NOT NULL;

-- The statement of an account reads both, in the order of seq, which SQLite appends to each. A hold
-- or a void is no line of the statement of the account that it would have credited.
CREATE INDEX ledger_transfer_debit_idx ON ledger_transfer (debit);
CREATE INDEX ledger_transfer_credit_idx ON ledger_transfer (credit)
    WHERE kind IN ('direct', 'post');

-- The audit compares a transfer's refunds with its refundable.
CREATE INDEX ledger_transfer_reverses_id_idx ON ledger_transfer (reverses_id)
    WHERE reverses_id IS NOT NULL;

-- How much of a transfer was given back. A row is born with the first refund, by trigger.
CREATE TABLE ledger_refundable (
    transfer_id TEXT    NOT NULL,
    amount      INTEGER NOT NULL,
    refunded    INTEGER NOT NULL,

    CONSTRAINT ledger_refundable_transfer_id_key PRIMARY KEY (transfer_id),
    CONSTRAINT ledger_refundable_within_amount CHECK (refunded BETWEEN 0 AND amount),
    CONSTRAINT ledger_refundable_transfer_fk
        FOREIGN KEY (transfer_id) REFERENCES ledger_transfer (id)
) STRICT, WITHOUT ROWID;

-- What a transfer says of another must be true. These could be foreign keys over all the columns
-- compared, but those need a unique index over the same columns of every transfer, which costs more
-- than the rest of the insert; a transfer never changes, so to compare once is to compare for ever.
-- The message of a RAISE is the name of the rule, as it is with a CHECK.

-- A post or a void moves between the accounts of its hold, and repeats its amount truly.
CREATE TRIGGER ledger_transfer_of_hold AFTER INSERT ON ledger_transfer
WHEN NEW.pending_id IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'ledger_transfer_of_hold')
    WHERE NOT EXISTS (
        SELECT 1 FROM ledger_transfer AS hold
        WHERE hold.id = NEW.pending_id AND hold.kind = 'pending'
            AND hold.debit = NEW.debit AND hold.credit = NEW.credit
            AND hold.amount = NEW.pending_amount
    );
END;

-- A refund goes the other way between the two accounts of something that moved money, and that is
-- no refund itself.
CREATE TRIGGER ledger_transfer_of_refunded AFTER INSERT ON ledger_transfer
WHEN NEW.reverses_id IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'ledger_transfer_of_refunded')
    WHERE NOT EXISTS (
        SELECT 1 FROM ledger_transfer AS original
        WHERE original.id = NEW.reverses_id AND original.kind IN ('direct', 'post')
            AND original.reverses_id IS NULL
            AND original.debit = NEW.credit AND original.credit = NEW.debit
    );
END;

-- Balances. One trigger for each kind, two updates each, debit first: an overdraft is refused
-- before anything is credited.

CREATE TRIGGER ledger_transfer_apply_direct AFTER INSERT ON ledger_transfer
WHEN NEW.kind = 'direct'
BEGIN
    UPDATE ledger_account SET debits_posted = debits_posted + NEW.amount WHERE id = NEW.debit;
    UPDATE ledger_account SET credits_posted = credits_posted + NEW.amount WHERE id = NEW.credit;
END;

CREATE TRIGGER ledger_transfer_apply_pending AFTER INSERT ON ledger_transfer
WHEN NEW.kind = 'pending'
BEGIN
    UPDATE ledger_account SET debits_pending = debits_pending + NEW.amount WHERE id = NEW.debit;
    UPDATE ledger_account SET credits_pending = credits_pending + NEW.amount WHERE id = NEW.credit;
END;

-- The whole hold is released, whatever part of it is posted.
CREATE TRIGGER ledger_transfer_apply_post AFTER INSERT ON ledger_transfer
WHEN NEW.kind = 'post'
BEGIN
    UPDATE ledger_account
        SET debits_pending = debits_pending - NEW.pending_amount,
            debits_posted = debits_posted + NEW.amount
        WHERE id = NEW.debit;
    UPDATE ledger_account
        SET credits_pending = credits_pending - NEW.pending_amount,
            credits_posted = credits_posted + NEW.amount
        WHERE id = NEW.credit;
END;

CREATE TRIGGER ledger_transfer_apply_void AFTER INSERT ON ledger_transfer
WHEN NEW.kind = 'void'
BEGIN
    UPDATE ledger_account
        SET debits_pending = debits_pending - NEW.pending_amount WHERE id = NEW.debit;
    UPDATE ledger_account
        SET credits_pending = credits_pending - NEW.pending_amount WHERE id = NEW.credit;
END;

CREATE TRIGGER ledger_transfer_apply_refund AFTER INSERT ON ledger_transfer
WHEN NEW.reverses_id IS NOT NULL
BEGIN
    INSERT INTO ledger_refundable (transfer_id, amount, refunded)
        SELECT id, amount, 0 FROM ledger_transfer
        WHERE id = NEW.reverses_id AND NOT EXISTS (
            SELECT 1 FROM ledger_refundable WHERE transfer_id = NEW.reverses_id
        );
    UPDATE ledger_refundable
        SET refunded = refunded + NEW.amount WHERE transfer_id = NEW.reverses_id;
END;

-- History stays.

CREATE TRIGGER ledger_transfer_no_update BEFORE UPDATE ON ledger_transfer
BEGIN
    SELECT RAISE(ABORT, 'ledger_transfer_no_update');
END;

CREATE TRIGGER ledger_transfer_no_delete BEFORE DELETE ON ledger_transfer
BEGIN
    SELECT RAISE(ABORT, 'ledger_transfer_no_delete');
END;

CREATE TRIGGER ledger_account_no_delete BEFORE DELETE ON ledger_account
BEGIN
    SELECT RAISE(ABORT, 'ledger_account_no_delete');
END;

CREATE TRIGGER ledger_refundable_no_delete BEFORE DELETE ON ledger_refundable
BEGIN
    SELECT RAISE(ABORT, 'ledger_refundable_no_delete');
END;

-- Money enters by transfers only.
CREATE TRIGGER ledger_account_born_empty BEFORE INSERT ON ledger_account
WHEN NEW.debits_posted <> 0 OR NEW.credits_posted <> 0
    OR NEW.debits_pending <> 0 OR NEW.credits_pending <> 0
BEGIN
    SELECT RAISE(ABORT, 'ledger_account_born_empty');
END;
