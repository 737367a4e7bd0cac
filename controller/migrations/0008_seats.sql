CREATE TYPE seat_role AS ENUM ('observer', 'driver', 'shell', 'command', 'files', 'ports');

-- Who sits, or has sat, beside an attempt, as its executor tells it.
CREATE TABLE seats (
    session_id uuid PRIMARY KEY,
    pairing_id uuid NOT NULL,
    attempt_id uuid NOT NULL,
    user_name  text NOT NULL,
    role       seat_role NOT NULL,
    began_at   timestamptz NOT NULL,
    -- The last input into the terminal was over; NULL: there was none.
    typed_at   timestamptz,
    -- NULL: they sit there for as long as the attempt lives.
    ended_at   timestamptz,
    -- Why, where it was not their wish.
    why        text NOT NULL DEFAULT '',
    CONSTRAINT seats_pairing_fkey FOREIGN KEY (pairing_id, attempt_id) REFERENCES pairings (id, attempt_id)
        ON DELETE CASCADE,
    CONSTRAINT seats_order_check CHECK (began_at <= typed_at AND began_at <= ended_at),
    CONSTRAINT seats_why_check CHECK (why = '' OR ended_at IS NOT NULL)
);
CREATE INDEX seats_by_pairing ON seats (pairing_id, attempt_id);
CREATE INDEX seats_taken ON seats (attempt_id) WHERE ended_at IS NULL;
