#!/usr/bin/env python3
"""Checks `highwater export` by another engine's SQL (Python 3.11, DuckDB).

What it is for: views are made up, with unicode, quotes and the longest ids, over several days around the end of a
February. They are sent by `loadgen replay` in four acts, each at a wall clock of its own, so that hours, days and a month
close on the way, and some views come after the finality of their hour, day or month. Then every table is exported as
Parquet and as CSV, and DuckDB counts the same from the very files that were sent. What the engine serves is held to the
exported minutes, too.

What it is not: a reader of the engine's files. Invariant: what is expected comes from the sent files and the acts' clocks
alone. Exit 1 on any difference.
"""
import argparse
import csv
import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import duckdb

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
LATENESS_MS = 10 * MINUTE_MS
TABLES = ["minute", "hour", "day", "top", "views"]
# The clock of each act. No deadline lies within the half minute that one takes; the last begins just before the end of
# a minute, since periods are closed then.
ACTS = ["2024-02-29T22:40:05Z", "2024-02-29T23:20:05Z", "2024-03-01T00:05:05Z", "2024-03-01T00:20:48Z"]
# Periods that are final by then and have views that came in time.
CLOSED = [("hour", "2024-02-29T22:00:00Z"), ("hour", "2024-02-29T23:00:00Z"), ("day", "2024-02-29T00:00:00Z")]
CLOSED += [("month", "2024-02-01T00:00:00Z")]
ACT_MS_MAX = 120_000
WAIT_S_MAX = 90
differences = 0


def ms_of(text):
    return int(datetime.datetime.fromisoformat(text).timestamp() * 1000)


def report(what, rows, wrong):
    global differences
    differences += wrong
    print(f"  {'ok' if wrong == 0 else 'DIFFERS'}: {what}: {rows} rows, {wrong} differences", flush=True)


def make_ids(chance):
    ids = [f"video-{number}" for number in range(2400)]
    ids += [f"{number:x}".rjust(255, "l") for number in range(60)]
    ids += ["é\"quoted\"", "comma,comma", "line\nbreak", " space ", "日本語のビデオ", "🎬" * 63, "null", "NULL", "0", "-", "e\u0301"]
    chance.shuffle(ids)
    return ids


def make_views(folder, seed, views):
    """One file for each act; returns their paths."""
    chance = random.Random(seed)
    ids = make_ids(chance)
    paths = []
    for act, clock in enumerate(ACTS):
        now = ms_of(clock)
        path = folder / f"act-{act}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["video_id", "ts_ms", "user_id", "region", "device"])
            for number in range(views):
                back = chance.choice([2 * MINUTE_MS, HOUR_MS, 3 * HOUR_MS, DAY_MS, 4 * DAY_MS])
                video = ids[min(int(chance.expovariate(4 / len(ids))), len(ids) - 1)]
                user = chance.choice(["", "u", "ü,\"", "x" * 255, f"user-{number}"])
                writer.writerow([video, now - chance.randrange(back), user, chance.choice(["", "DE", "日本"]), "tv\r\n"])
        paths.append(path)
    return paths


class Engine:
    """`highwater serve` at a wall clock."""

    def __init__(self, options, data, clock):
        offset = ms_of(clock) // 1000 - int(time.time())
        self.options, self.data = options, data
        self.environment = {**os.environ, "LD_PRELOAD": str(options.clock.resolve()), "CLOCK_OFFSET_S": str(offset)}
        # A clock that jumps is what this is about.
        command = [options.binaries / "highwater", "serve", f"--data-dir={data}", "--listen=127.0.0.1:0", "--accept-clock"]
        command += ["--http=127.0.0.1:0", "--memory=512MiB", f"--cores={min(os.sched_getaffinity(0))}"]
        self.log = data.with_suffix(".log").open("ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, env=self.environment)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the engine did not start:\n{data.with_suffix('.log').read_text()}")
        self.ready = json.loads(line)

    def replay(self, path):
        command = [self.options.binaries / "loadgen", "replay", path, f"--engine={self.ready['listen'][0]}"]
        command += [f"--ca={self.ready['ca']}", "--batch=512"]
        ended = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if ended.returncode != 0:
            raise SystemExit(f"loadgen failed: {ended.stderr}")
        told = json.loads(ended.stdout)
        if told["views_acked"] != told["views_sent"]:
            raise SystemExit(f"not every view was accepted: {ended.stdout}")

    def ask(self, **question):
        url = f"http://{self.ready['http']}/v1/videos/top?{urllib.parse.urlencode(question)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=30) as answer:
            return json.load(answer)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=WAIT_S_MAX) != 0:
            raise SystemExit(f"the engine did not end cleanly:\n{self.data.with_suffix('.log').read_text()}")


class Check:
    """Sent views and exported tables in DuckDB."""

    def __init__(self, options, folder, paths):
        self.options, self.folder, self.paths = options, folder, paths
        self.sql = duckdb.connect()

    def load(self, acts):
        """The views of the first acts, each with the clock that it arrived at."""
        columns = {"video_id": "VARCHAR", "ts_ms": "BIGINT", "user_id": "VARCHAR", "region": "VARCHAR", "device": "VARCHAR"}
        parts = []
        for act, path in list(enumerate(self.paths))[:acts]:
            read = f"read_csv('{path}', header=true, quote='\"', escape='\"', delim=',', columns={columns}, "
            read += "nullstr='\\N', strict_mode=true, parallel=false)"
            parts.append(f"SELECT *, {ms_of(ACTS[act])}::BIGINT AS arrival_ms FROM {read}")
        self.sql.execute(f"CREATE OR REPLACE TABLE sent AS {' UNION ALL '.join(parts)}")
        return self.sql.execute("SELECT count(*) FROM sent").fetchone()[0]

    def export(self, data, table, ending, more=()):
        out = self.folder / f"{table}.{ending}"
        command = [self.options.binaries / "highwater", "export", f"--data-dir={data}", f"--table={table}", f"--out={out}"]
        ended = subprocess.run([*command, "--force", *more], capture_output=True, text=True)
        if ended.returncode != 0:
            raise SystemExit(f"the export of {table} failed: {ended.stderr}")
        return out, json.loads(ended.stdout)

    def compare(self, what, wanted, found):
        rows = self.sql.execute(f"SELECT count(*) FROM ({wanted})").fetchone()[0]
        wrong = sum(
            self.sql.execute(f"SELECT count(*) FROM (({one}) EXCEPT ALL ({other}))").fetchone()[0]
            for one, other in [(wanted, found), (found, wanted)]
        )
        report(what, rows, wrong)

    def wanted(self, table):
        if table == "views":
            return "SELECT video_id, ts_ms, user_id, region, device, arrival_ms FROM sent"
        if table == "top":
            return self.wanted_top()
        grain = {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS}[table]
        parts = {"minute": f", start_ms % {DAY_MS} // {HOUR_MS}, start_ms % {HOUR_MS} // {MINUTE_MS}"}
        parts["hour"], parts["day"] = f", start_ms % {DAY_MS} // {HOUR_MS}", ""
        inner = f"SELECT video_id, ts_ms - ts_ms % {grain} AS start_ms, count(*) AS n FROM sent GROUP BY ALL"
        date = f"DATE '1970-01-01' + (start_ms // {DAY_MS})::INTEGER"
        return f"SELECT video_id, {date}{parts[table]}, n, start_ms FROM ({inner})"

    def wanted_top(self):
        """A view counts in a period if it arrived before that was final; periods that are final now have a list."""
        month = "date_trunc('month', make_timestamp(ts_ms * 1000))"
        kinds = [
            ("hour", f"ts_ms - ts_ms % {HOUR_MS}", f"ts_ms - ts_ms % {HOUR_MS} + {HOUR_MS}"),
            ("day", f"ts_ms - ts_ms % {DAY_MS}", f"ts_ms - ts_ms % {DAY_MS} + {DAY_MS}"),
            ("month", f"epoch_ms({month})", f"epoch_ms({month} + INTERVAL 1 MONTH)"),
        ]
        each = [f"SELECT '{kind}' AS period, {start} AS s, {end} AS e, video_id, arrival_ms FROM sent" for kind, start, end in kinds]
        in_time = f"arrival_ms < e + {LATENESS_MS} AND e + {LATENESS_MS} <= {ms_of(ACTS[-1])}"
        counted = f"SELECT period, s, e, video_id, count(*) AS n FROM ({' UNION ALL '.join(each)}) WHERE {in_time} GROUP BY ALL"
        ranked = "SELECT *, row_number() OVER (PARTITION BY period, s ORDER BY n DESC, video_id) AS rank, "
        ranked += f"sum(n) OVER (PARTITION BY period, s)::BIGINT AS total FROM ({counted})"
        return f"SELECT * FROM ({ranked}) WHERE rank <= 1000"

    def found(self, table, source):
        """The exported rows, times as milliseconds."""
        columns = [name for name, *_ in self.sql.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
        times = {"start_time", "end_time", "view_timestamp", "arrival_time"}
        texts = [f"epoch_ms({name})" if name in times else name for name in columns]
        if table == "views":
            # Arrivals are those of an act; it is the clock of its beginning that is compared.
            clocks = ", ".join(str(ms_of(clock)) for clock in ACTS)
            act = f"list_max(list_filter([{clocks}], lambda clock: clock <= epoch_ms(arrival_time)))"
            fits = f"epoch_ms(arrival_time) - {act} < {ACT_MS_MAX}"
            texts[-1] = f"CASE WHEN {fits} THEN {act} END"
        return f"SELECT {', '.join(texts)} FROM {source}"

    def tables(self, data, when, tables):
        for table in tables:
            out, summary = self.export(data, table, "parquet")
            self.compare(f"{when}: {table}", self.wanted(table), self.found(table, f"read_parquet('{out}')"))
            rows = self.sql.execute(f"SELECT count(*) FROM read_parquet('{out}')").fetchone()[0]
            if (summary["rows"], summary["bytes"]) != (rows, out.stat().st_size):
                report(f"{when}: the summary of {table}: {summary}", 1, 1)

    def same_as_csv(self, data, table):
        out, _ = self.export(data, table, "csv")
        parquet = f"read_parquet('{self.folder / table}.parquet')"
        described = self.sql.execute(f"DESCRIBE SELECT * FROM {parquet}").fetchall()
        columns = {name: kind for name, kind, *_ in described}
        read = f"read_csv('{out}', header=true, quote='\"', escape='\"', delim=',', columns={columns}, nullstr='\\N', "
        read += "strict_mode=true, parallel=false)"
        self.compare(f"{table} as CSV", f"SELECT * FROM {parquet}", f"SELECT * FROM {read}")

    def served(self, answers):
        """What was served, against exported minutes: no view lies in the future, so a window has a lower edge only."""
        minutes = f"read_parquet('{self.folder / 'minute'}.parquet')"
        for answer in answers:
            start = ms_of(answer["start_time"]) if answer["start_time"] else 0
            counted = f"SELECT video_id, sum(view_count)::BIGINT AS n FROM {minutes} WHERE epoch_ms(start_time) >= {start} GROUP BY ALL"
            ranked = "SELECT row_number() OVER (ORDER BY n DESC, video_id) AS rank, video_id, n, "
            ranked += f"(sum(n) OVER ())::BIGINT FROM ({counted})"
            self.same_list(f"{answer['window']} {answer['period']}", answer, f"SELECT * FROM ({ranked}) WHERE rank <= 1000")

    def served_closed(self, answers):
        """Closed periods that were served, against exported lists."""
        lists = f"read_parquet('{self.folder / 'top'}.parquet')"
        for answer in answers:
            where = f"period = '{answer['period']}' AND epoch_ms(start_time) = {ms_of(answer['start_time'])}"
            wanted = f"SELECT rank::BIGINT, video_id, view_count, total_views FROM {lists} WHERE {where}"
            self.same_list(f"closed {answer['period']} {answer['start_time']}", answer, wanted)

    def same_list(self, what, answer, wanted):
        self.sql.execute("CREATE OR REPLACE TABLE served (rank BIGINT, video_id VARCHAR, n BIGINT, total BIGINT)")
        rows = [(row["rank"], row["video_id"], row["view_count"], answer["total_views"]) for row in answer["top_videos"]]
        if rows:
            self.sql.executemany("INSERT INTO served VALUES (?, ?, ?, ?)", rows)
        self.compare(f"served: {what}", wanted, "FROM served")


def wait_for_lists(data):
    """The month is the last that is closed."""
    until = time.monotonic() + WAIT_S_MAX
    while not list(data.glob("history/month-*.top")):
        if time.monotonic() > until:
            raise SystemExit(f"no month was closed within {WAIT_S_MAX} s")
        time.sleep(0.2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=Path, required=True, help="folder of highwater and loadgen")
    parser.add_argument("--clock", type=Path, required=True, help="clock.c, compiled")
    parser.add_argument("--views", type=int, default=6000, help="views of each act")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"DuckDB {duckdb.__version__}; the same again by: tests/duckdb/run --seed={options.seed} --views={options.views}")
    folder = Path(tempfile.mkdtemp(prefix="data-", dir=options.clock.parent))
    data = folder / "engine"
    began = time.monotonic()
    engine = None
    try:
        paths = make_views(folder, options.seed, options.views)
        check = Check(options, folder, paths)
        for clock, path in list(zip(ACTS, paths))[:-1]:
            engine = Engine(options, data, clock)
            engine.replay(path)
            engine.stop()
        engine = Engine(options, data, ACTS[-1])
        print(f"{check.load(3)} views in three acts; the engine runs")
        check.tables(data, "running", ["minute", "hour", "day", "views"])
        wait_for_lists(data)
        check.tables(data, "running", ["top"])
        engine.replay(paths[-1])
        # Acknowledged views are in the snapshot after next at the latest.
        epoch = engine.ask(period="hour", k=1)["epoch"] + 2
        windows = [("sliding", period) for period in ["hour", "day", "month", "all-time"]]
        windows += [("tumbling", period) for period in ["hour", "day", "month"]]
        answers = [engine.ask(period=period, window=window, k=1000, min_epoch=epoch) for window, period in windows]
        closed = [engine.ask(period=period, window="tumbling", start=start, k=1000) for period, start in CLOSED]
        engine.stop()
        print(f"{check.load(4)} views in four acts; the engine is stopped")
        check.tables(data, "stopped", TABLES)
        for table in TABLES:
            check.same_as_csv(data, table)
        check.served(answers)
        check.served_closed(closed)
    except BaseException:
        if engine and engine.process.poll() is None:
            engine.process.kill()
            engine.process.wait()
        raise
    finally:
        shutil.rmtree(folder)
    print(f"{differences} differences, {time.monotonic() - began:.0f} s")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
