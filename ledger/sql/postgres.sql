-- The ledger's tables on PostgreSQL (tested with 15). sqlite.sql beside this file has the same rules
-- under the same names, with the reasons; here stands what is particular to this database.
--
-- Ids sort by their bytes (COLLATE "C"), whatever the database's own language: locks are taken in
-- the order of accounts' ids, and that must be one order for everybody.

CREATE TABLE ledger_account (
    id              text COLLATE "C" NOT NULL,
    kind            text     NOT NULL,
    allow_overdraft smallint NOT NULL,
    debits_posted   bigint   NOT NULL DEFAULT 0,
    credits_posted  bigint   NOT NULL DEFAULT 0,
    debits_pending  bigint   NOT NULL DEFAULT 0,
    credits_pending bigint   NOT NULL DEFAULT 0,
    created_us      bigint   NOT NULL,

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
)
-- Rows that are updated all day find room for their next version on the same page.
WITH (fillfactor = 70);

CREATE SEQUENCE ledger_transfer_seq;

CREATE TABLE ledger_transfer (
    seq             bigint NOT NULL,  -- ledger_transfer_in_turn gives it; there may be gaps
    id              text COLLATE "C" NOT NULL,
    kind            text   NOT NULL,
    debit           text COLLATE "C" NOT NULL,
    credit          text COLLATE "C" NOT NULL,
    amount          bigint NOT NULL,
    fingerprint     text   NOT NULL,
    pending_id      text COLLATE "C",
    pending_amount  bigint,
    reverses_id     text COLLATE "C",
    tags            text   NOT NULL,
    at_us           bigint NOT NULL,

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
);

ALTER SEQUENCE ledger_transfer_seq OWNED BY ledger_transfer.seq;

-- A hold is resolved once: one post or one void.
CREATE UNIQUE INDEX ledger_transfer_pending_id_key ON ledger_transfer (pending_id)
    WHERE pending_id IS NOT NULL;

-- The statement of an account reads both.
CREATE INDEX ledger_transfer_debit_idx ON ledger_transfer (debit, seq);
CREATE INDEX ledger_transfer_credit_idx ON ledger_transfer (credit, seq)
    WHERE kind IN ('direct', 'post');

CREATE INDEX ledger_transfer_reverses_id_idx ON ledger_transfer (reverses_id)
    WHERE reverses_id IS NOT NULL;

CREATE TABLE ledger_refundable (
    transfer_id text COLLATE "C" NOT NULL,
    amount      bigint NOT NULL,
    refunded    bigint NOT NULL,

    CONSTRAINT ledger_refundable_transfer_id_key PRIMARY KEY (transfer_id),
    CONSTRAINT ledger_refundable_within_amount CHECK (refunded BETWEEN 0 AND amount),
    CONSTRAINT ledger_refundable_transfer_fk
        FOREIGN KEY (transfer_id) REFERENCES ledger_transfer (id)
);

-- Refuses under the name of the trigger that calls it, as a constraint would.
CREATE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        MESSAGE = TG_NAME,
        ERRCODE = 'integrity_constraint_violation',
        CONSTRAINT = TG_NAME,
        TABLE = TG_TABLE_NAME;
END
$$;

-- Two connections that lock the same two accounts one after the other, each in its own order, wait
-- for each other for ever. So both accounts are locked here, in the order of their ids, before the
-- row is written; whoever writes many rows in a transaction locks all their accounts before
-- (Ledger.lock_accounts), and a batch of the ledger does so by itself.
--
-- The number is drawn under those locks, and not as the column's default: of two transfers of one
-- account, the one that is committed first has the lower number, so that a reader who goes on after
-- the last number that he saw misses none.
CREATE FUNCTION ledger_take_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM ledger_account
        WHERE id IN (NEW.debit, NEW.credit) ORDER BY id FOR NO KEY UPDATE;
    IF NEW.seq IS NULL THEN
        NEW.seq := nextval('ledger_transfer_seq');
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER ledger_transfer_in_turn BEFORE INSERT ON ledger_transfer
    FOR EACH ROW EXECUTE FUNCTION ledger_take_turn();

-- What a transfer says of another must be true.

CREATE FUNCTION ledger_require_hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM ledger_transfer AS hold
        WHERE hold.id = NEW.pending_id AND hold.kind = 'pending'
            AND hold.debit = NEW.debit AND hold.credit = NEW.credit
            AND hold.amount = NEW.pending_amount
    ) THEN
        RAISE EXCEPTION USING
            MESSAGE = TG_NAME,
            ERRCODE = 'integrity_constraint_violation',
            CONSTRAINT = TG_NAME,
            TABLE = TG_TABLE_NAME;
    END IF;
    RETURN NULL;
END
$$;

-- A post or a void moves between the accounts of its hold, and repeats its amount truly.
CREATE TRIGGER ledger_transfer_of_hold AFTER INSERT ON ledger_transfer
    FOR EACH ROW WHEN (NEW.pending_id IS NOT NULL) EXECUTE FUNCTION ledger_require_hold();

CREATE FUNCTION ledger_require_refunded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM ledger_transfer AS original
        WHERE original.id = NEW.reverses_id AND original.kind IN ('direct', 'post')
            AND original.reverses_id IS NULL
            AND original.debit = NEW.credit AND original.credit = NEW.debit
    ) THEN
        RAISE EXCEPTION USING
            MESSAGE = TG_NAME,
            ERRCODE = 'integrity_constraint_violation',
            CONSTRAINT = TG_NAME,
            TABLE = TG_TABLE_NAME;
    END IF;
    RETURN NULL;
END
$$;

-- A refund goes the other way between the two accounts of something that moved money, and that is
-- no refund itself.
CREATE TRIGGER ledger_transfer_of_refunded AFTER INSERT ON ledger_transfer
    FOR EACH ROW WHEN (NEW.reverses_id IS NOT NULL) EXECUTE FUNCTION ledger_require_refunded();

-- Balances. After the insert, and not before it, where an INSERT that then does nothing
-- (ON CONFLICT DO NOTHING) would have moved money. The accounts are locked already.

CREATE FUNCTION ledger_apply() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moved bigint := CASE WHEN NEW.kind IN ('direct', 'post') THEN NEW.amount ELSE 0 END;
    -- The whole hold is released, whatever part of it is posted.
    held bigint := CASE NEW.kind
        WHEN 'direct' THEN 0 WHEN 'pending' THEN NEW.amount ELSE -NEW.pending_amount END;
BEGIN
    UPDATE ledger_account
        SET debits_posted = debits_posted + moved, debits_pending = debits_pending + held
        WHERE id = NEW.debit;
    UPDATE ledger_account
        SET credits_posted = credits_posted + moved, credits_pending = credits_pending + held
        WHERE id = NEW.credit;
    RETURN NULL;
END
$$;

CREATE TRIGGER ledger_transfer_apply_direct AFTER INSERT ON ledger_transfer
    FOR EACH ROW WHEN (NEW.kind = 'direct') EXECUTE FUNCTION ledger_apply();

CREATE TRIGGER ledger_transfer_apply_pending AFTER INSERT ON ledger_transfer
    FOR EACH ROW WHEN (NEW.kind = 'pending') EXECUTE FUNCTION ledger_apply();

CREATE TRIGGER ledger_transfer_apply_post AFTER INSERT ON ledger_transfer
    FOR EACH ROW WHEN (NEW.kind = 'post') EXECUTE FUNCTION ledger_apply();

CREATE TRIGGER ledger_transfer_apply_void AFTER INSERT ON ledger_transfer
    FOR EACH ROW WHEN (NEW.kind = 'void') EXECUTE FUNCTION ledger_apply();

CREATE FUNCTION ledger_apply_refund() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger_refundable (transfer_id, amount, refunded)
        SELECT id, amount, 0 FROM ledger_transfer WHERE id = NEW.reverses_id
        ON CONFLICT (transfer_id) DO NOTHING;
    UPDATE ledger_refundable
        SET refunded = refunded + NEW.amount WHERE transfer_id = NEW.reverses_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER ledger_transfer_apply_refund AFTER INSERT ON ledger_transfer
    FOR EACH ROW WHEN (NEW.reverses_id IS NOT NULL) EXECUTE FUNCTION ledger_apply_refund();

-- History stays. For each statement, whether or not it would find a row.

CREATE TRIGGER ledger_transfer_no_update BEFORE UPDATE ON ledger_transfer
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();

CREATE TRIGGER ledger_transfer_no_delete BEFORE DELETE ON ledger_transfer
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();

CREATE TRIGGER ledger_transfer_no_truncate BEFORE TRUNCATE ON ledger_transfer
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();

CREATE TRIGGER ledger_account_no_delete BEFORE DELETE ON ledger_account
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();

CREATE TRIGGER ledger_account_no_truncate BEFORE TRUNCATE ON ledger_account
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();

CREATE TRIGGER ledger_refundable_no_delete BEFORE DELETE ON ledger_refundable
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();

CREATE TRIGGER ledger_refundable_no_truncate BEFORE TRUNCATE ON ledger_refundable
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();

-- Money enters by transfers only.
CREATE TRIGGER ledger_account_born_empty BEFORE INSERT ON ledger_account
    FOR EACH ROW WHEN (
        NEW.debits_posted <> 0 OR NEW.credits_posted <> 0
        OR NEW.debits_pending <> 0 OR NEW.credits_pending <> 0
    ) EXECUTE FUNCTION ledger_refuse();
