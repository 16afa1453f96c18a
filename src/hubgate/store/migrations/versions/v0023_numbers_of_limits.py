"""Slots under the numbers of the newest configuration that a gateway knows: on PostgreSQL only."""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"

_COLUMNS = """
ALTER TABLE rate_limits ADD COLUMN version bigint, ADD COLUMN rate int, ADD COLUMN burst int,
  ADD COLUMN confirmed bigint,
  ADD COLUMN horizon bigint, ADD COLUMN late bigint, ADD COLUMN late_at bigint
"""

# The same as `hubgate/store/valkey/take.lua`; a test compares their answers. `at` and `server` are for it. Gateways of
# the version before call `hubgate_take`, which knows one set of numbers.
_GIVE_SLOTS = """
CREATE FUNCTION hubgate_give_slots(
  limit_key text, want int, rate int, burst int, span bigint, known_gateways int, clock_was_set boolean,
  was_alone boolean, pause_for bigint, slow_for bigint, slow_by bigint, asked bigint, at bigint DEFAULT NULL,
  server text DEFAULT NULL
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
  dead CONSTANT bigint := 30000000; silent CONSTANT bigint := 3000000; careful CONSTANT bigint := 62000000;
  ahead CONSTANT bigint := 100000; late CONSTANT bigint := 20000; longest_pause CONSTANT bigint := 310000000;
  forgotten CONSTANT bigint := 600000000; was_rate int; was_burst int; widest bigint;
  this text := coalesce(server, pg_postmaster_start_time()::text);
  here bigint; known rate_limits%ROWTYPE; home rate_limit_server%ROWTYPE;
  is_used boolean; is_sure boolean; heard_now int; gateways_now int; most int; per_window int;
  horizon bigint; step bigint; first bigint; granted bigint := 0;
BEGIN
  LOOP
    SELECT * INTO known FROM rate_limits WHERE key = limit_key FOR UPDATE;
    EXIT WHEN FOUND;
    INSERT INTO rate_limits (key) VALUES (limit_key) ON CONFLICT DO NOTHING;
  END LOOP;
  here := coalesce(at, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
  is_used := known.free IS NOT NULL;
  known.since := coalesce(known.since, 0); known.changed := coalesce(known.changed, 0);
  known.pause := coalesce(known.pause, 0); known.slow := coalesce(known.slow, 0);
  known.slow_step := coalesce(known.slow_step, 0);

  known.late := coalesce(known.late, 0); known.late_at := coalesce(known.late_at, 0);
  was_rate := known.rate; was_burst := known.burst;
  IF was_rate IS NOT NULL AND asked <= known.version AND abs(here - known.confirmed) < forgotten THEN
    IF asked = known.version THEN known.confirmed := here; END IF;
    rate := was_rate; burst := was_burst;
  ELSE
    known.confirmed := here; known.version := asked;
  END IF;

  SELECT count(*) FILTER (WHERE g.at >= here - silent), count(*) INTO heard_now, gateways_now
    FROM rate_limit_gateways g WHERE g.at BETWEEN here - dead AND here + 1000000;
  heard_now := greatest(1, heard_now);
  gateways_now := greatest(heard_now, gateways_now);
  most := greatest(gateways_now, known_gateways, coalesce(known.gateways, 1));
  horizon := ceil(greatest(2000000, (most + 1) * span::float8 / greatest(1, rate - burst + 1 - 2 * most)));
  widest := greatest(horizon, known.horizon);

  SELECT * INTO home FROM rate_limit_server WHERE id = 1;
  is_sure := is_used AND known.epoch = this
    AND known.free <= here + 2 * widest + CASE WHEN known.slow > here THEN longest_pause ELSE 0 END;
  IF NOT is_used AND home.epoch = this AND here - home.since > horizon THEN
    known.free := 0; is_sure := true;
  END IF;
  IF NOT is_sure OR clock_was_set THEN
    known.free := here + widest; known.since := here; known.changed := here;
  END IF;
  IF here - known.since < dead THEN gateways_now := most; END IF;
  IF is_used AND (heard_now <> known.heard OR gateways_now <> known.gateways) OR was_alone THEN
    known.changed := here;
  END IF;

  IF (rate <> was_rate OR burst <> was_burst) AND known.late > 0 AND here - known.late_at < careful THEN
    known.free := greatest(known.free, here) + known.late; known.late := 0;
  END IF;
  IF known.free <= here + 2 * horizon THEN widest := horizon; END IF;

  per_window := rate - burst + 1;
  IF here - known.changed < careful THEN per_window := greatest(1, per_window - 2 * gateways_now); END IF;
  step := ceil(span::float8 / per_window * gateways_now / heard_now);
  IF pause_for > 0 THEN known.pause := greatest(known.pause, here + pause_for); END IF;
  IF slow_for > 0 THEN known.slow := here + slow_for; known.slow_step := slow_by; END IF;
  IF known.slow > here AND known.slow < here + longest_pause THEN step := greatest(step, known.slow_step); END IF;

  first := greatest(known.free, here - greatest(late, (burst - 1) * step));
  IF known.pause < here + longest_pause THEN first := greatest(first, known.pause); END IF;
  IF want > 0 AND first <= here + horizon THEN
    granted := greatest(1, least(want, floor((here + ahead - first)::float8 / step) + 1));
    known.free := first + granted * step;
    IF here - first > late THEN
      IF here - known.late_at >= careful THEN known.late := 0; END IF;
      known.late := greatest(known.late, here - first);
      known.late_at := here;
    END IF;
  END IF;
  UPDATE rate_limits SET free = known.free, epoch = this, since = known.since, changed = known.changed,
    gateways = gateways_now, heard = heard_now, pause = known.pause, slow = known.slow, slow_step = known.slow_step,
    version = known.version, rate = hubgate_give_slots.rate, burst = hubgate_give_slots.burst,
    confirmed = known.confirmed, horizon = widest, late = known.late, late_at = known.late_at
    WHERE key = limit_key;
  RETURN ARRAY[here, first, granted, step, horizon, gateways_now];
END $$
"""


def upgrade() -> None:
    """Add the columns and the function."""
    if op.get_bind().dialect.name == "postgresql":
        for statement in (_COLUMNS, _GIVE_SLOTS):
            op.execute(statement)
