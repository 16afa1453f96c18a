"""What gateways share about rate limits in PostgreSQL: tables that need not survive a crash, and functions on them.

Times are microseconds of the database's clock; a test may pass `at` or `moment`, and `server` for the start of the server.
`tests/servers/limit_server.py` does the same in Python, for tests in virtual time; others compare their answers.
"""

_TABLES = """
CREATE UNLOGGED TABLE rate_limits (
  key text PRIMARY KEY, free bigint, epoch text, since bigint, changed bigint, gateways int, heard int,
  pause bigint, slow bigint, slow_step bigint, version bigint, rate int, burst int, confirmed bigint,
  horizon bigint, late bigint, late_at bigint
) WITH (fillfactor = 20);
CREATE UNLOGGED TABLE rate_limit_gateways (name text PRIMARY KEY, at bigint NOT NULL) WITH (fillfactor = 20);
CREATE UNLOGGED TABLE rate_limit_server (id int PRIMARY KEY, epoch text NOT NULL, since bigint NOT NULL);
CREATE UNLOGGED TABLE rate_limit_notices (
  name text PRIMARY KEY, owner text NOT NULL, text text NOT NULL, until float8 NOT NULL
) WITH (fillfactor = 20);
CREATE UNLOGGED TABLE rate_limit_leases (
  key text, gateway text COLLATE "C", has bigint NOT NULL, wants boolean NOT NULL, at bigint NOT NULL,
  number bigint NOT NULL, PRIMARY KEY (key, gateway)
) WITH (fillfactor = 20);
CREATE UNLOGGED TABLE rate_limit_totals (
  key text PRIMARY KEY, most bigint NOT NULL, version bigint NOT NULL, confirmed bigint NOT NULL
) WITH (fillfactor = 20);
CREATE UNLOGGED TABLE rate_limit_keys (
  key text, second bigint, requests bigint NOT NULL, tokens bigint NOT NULL, PRIMARY KEY (key, second)
) WITH (fillfactor = 50);
"""

_BEAT = """
CREATE OR REPLACE FUNCTION hubgate_beat(
  gateway text, sent_at bigint, at bigint DEFAULT NULL, server text DEFAULT NULL
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
  dead CONSTANT bigint := 30000000; too_late CONSTANT bigint := 1000000;
  this text := coalesce(server, pg_postmaster_start_time()::text);
  here bigint := coalesce(at, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
BEGIN
  PERFORM 1 FROM rate_limit_server WHERE id = 1 AND epoch = this;
  IF NOT FOUND THEN
    INSERT INTO rate_limit_server VALUES (1, this, here)
      ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, since = excluded.since
      WHERE rate_limit_server.epoch <> excluded.epoch;
  END IF;
  IF abs(here - sent_at) < too_late THEN
    INSERT INTO rate_limit_gateways VALUES (gateway, here) ON CONFLICT (name) DO UPDATE SET at = excluded.at;
    DELETE FROM rate_limit_gateways g WHERE g.at <= here - 2 * dead;
  END IF;
  RETURN ARRAY[here, (SELECT count(*) FROM rate_limit_gateways g WHERE g.at BETWEEN here - dead AND here + 1000000)];
END $$
"""

_TAKE = """
CREATE OR REPLACE FUNCTION hubgate_take(
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
    version = known.version, rate = hubgate_take.rate, burst = hubgate_take.burst,
    confirmed = known.confirmed, horizon = widest, late = known.late, late_at = known.late_at
    WHERE key = limit_key;
  RETURN ARRAY[here, first, granted, step, horizon, gateways_now];
END $$
"""

_LEASE = """
CREATE OR REPLACE FUNCTION hubgate_lease(
  lease_key text, me text, most bigint, holds bigint, is_busy boolean, known bigint, was_away boolean,
  question bigint, asked bigint, moment bigint DEFAULT NULL, server text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  forgotten CONSTANT bigint := 600000000; confirmed_for CONSTANT bigint := 60000000; total rate_limit_totals%ROWTYPE;
  lapsed CONSTANT bigint := 5000000; silent CONSTANT bigint := 3000000; dead CONSTANT bigint := 30000000;
  turn CONSTANT bigint := 2000000; this text := coalesce(server, pg_postmaster_start_time()::text);
  here bigint; age bigint; heard_now bigint; gateways bigint; taken bigint; held bigint; busy bigint; rank bigint;
  turns bigint := 0; granted bigint := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('hubgate lease ' || lease_key, 0));
  here := coalesce(moment, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
  PERFORM 1 FROM rate_limit_leases l WHERE l.key = lease_key AND l.gateway = me AND l.number > question;
  IF FOUND THEN RETURN -1; END IF;
  SELECT * INTO total FROM rate_limit_totals t WHERE t.key = lease_key;
  IF total.most IS NOT NULL AND asked <= total.version AND abs(here - total.confirmed) < forgotten THEN
    most := total.most;
    IF asked = total.version AND abs(here - total.confirmed) > confirmed_for THEN
      UPDATE rate_limit_totals t SET confirmed = here WHERE t.key = lease_key;
    END IF;
  ELSE
    INSERT INTO rate_limit_totals VALUES (lease_key, hubgate_lease.most, asked, here) ON CONFLICT (key) DO UPDATE
      SET most = excluded.most, version = excluded.version, confirmed = excluded.confirmed;
  END IF;
  age := coalesce((SELECT here - s.since FROM rate_limit_server s WHERE s.id = 1 AND s.epoch = this), 0);
  SELECT count(*) FILTER (WHERE g.at >= here - silent), count(*) INTO heard_now, gateways
    FROM rate_limit_gateways g WHERE g.at BETWEEN here - dead AND here + 1000000;
  gateways := greatest(1, gateways);
  IF age < dead OR was_away THEN gateways := greatest(gateways, known); END IF;
  taken := greatest(0, gateways - greatest(1, heard_now)) * (most / gateways);
  DELETE FROM rate_limit_leases l WHERE l.key = lease_key AND l.gateway <> me AND abs(here - l.at) > lapsed;
  SELECT coalesce(sum(l.has), 0), count(*) FILTER (WHERE l.wants),
    count(*) FILTER (WHERE l.wants AND l.gateway < me COLLATE "C")
    INTO held, busy, rank FROM rate_limit_leases l WHERE l.key = lease_key AND l.gateway <> me;
  taken := taken + held;
  IF is_busy THEN
    busy := busy + 1;
    IF most < busy THEN turns := here / turn; END IF;
    granted := most / busy + CASE WHEN (rank + turns) % busy < most % busy THEN 1 ELSE 0 END;
    granted := greatest(0, least(granted, most - taken));
    IF age < lapsed AND gateways > 1 THEN granted := least(granted, holds); END IF;
  END IF;
  IF is_busy OR holds > 0 THEN
    INSERT INTO rate_limit_leases VALUES (lease_key, me, greatest(granted, holds), is_busy, here, question)
      ON CONFLICT (key, gateway) DO UPDATE SET has = excluded.has, wants = excluded.wants, at = excluded.at,
        number = excluded.number;
  ELSE
    DELETE FROM rate_limit_leases l WHERE l.key = lease_key AND l.gateway = me;
  END IF;
  RETURN granted;
END $$
"""

_MINUTE = """
CREATE OR REPLACE FUNCTION hubgate_minute(
  gateway_key text, max_requests bigint, max_tokens bigint, spent bigint, at bigint DEFAULT NULL
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
  here bigint; this_second bigint; frees bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('hubgate key ' || gateway_key, 0));
  here := coalesce(at, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
  this_second := here / 1000000;
  IF spent <> 0 THEN
    INSERT INTO rate_limit_keys AS k VALUES (gateway_key, this_second, 0, spent)
      ON CONFLICT (key, second) DO UPDATE SET tokens = k.tokens + spent;
    RETURN ARRAY[0, 0];
  END IF;
  -- Those in the future were counted before the clock was set back.
  DELETE FROM rate_limit_keys k
    WHERE k.key = gateway_key AND (k.second < this_second - 60 OR k.second > this_second + 1);
  IF max_tokens > 0 THEN
    SELECT min(second) INTO frees FROM (
      SELECT second, sum(tokens) OVER () AS total, sum(tokens) OVER (ORDER BY second) AS until_then
      FROM rate_limit_keys WHERE key = gateway_key) counts
      WHERE total >= max_tokens AND total - until_then < max_tokens;
    IF frees IS NOT NULL THEN RETURN ARRAY[2, (frees + 61) * 1000000 - here]; END IF;
  END IF;
  IF max_requests > 0 THEN
    SELECT min(second) INTO frees FROM (
      SELECT second, sum(requests) OVER () AS total, sum(requests) OVER (ORDER BY second) AS until_then
      FROM rate_limit_keys WHERE key = gateway_key) counts
      WHERE total >= max_requests AND total - until_then < max_requests;
    IF frees IS NOT NULL THEN RETURN ARRAY[1, (frees + 61) * 1000000 - here]; END IF;
    INSERT INTO rate_limit_keys AS k VALUES (gateway_key, this_second, 1, 0)
      ON CONFLICT (key, second) DO UPDATE SET requests = k.requests + 1;
  END IF;
  RETURN ARRAY[0, 0];
END $$
"""

ALL = (_TABLES, _BEAT, _TAKE, _LEASE, _MINUTE)
"""Statements that create them."""
