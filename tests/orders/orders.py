#!/usr/bin/env python3
"""Sends one file of views in three orders, each to an engine of its own, and compares all that comes out (Python 3.11).

What it is for: answers must not depend on the order in which views arrive within their finality. Lateness is set so long
that a year of views is in time; then the wall clock leaps, every period becomes final, and is closed. Lists are also held
to a count made here. What it is not: a measurement. Invariant: what is expected comes from the file alone. Exit 1 on any
difference.
"""
import argparse
import csv
import datetime
import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path

MINUTE_MS, DAY_MS = 60_000, 86_400_000
WAIT_S_MAX = 900
KEPT = ["--lateness-max=500d", "--minute-retention=3650d", "--hour-retention=3650d", "--day-retention=3650d"]
WINDOWS = [("sliding", period) for period in ["hour", "day", "month", "all-time"]]
WINDOWS += [("tumbling", period) for period in ["hour", "day", "month"]]


def moment(ms):
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC)


def text(when):
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


class Engine:
    """`highwater serve` at a wall clock."""

    def __init__(self, options, data, now_ms, more=()):
        offset = now_ms // 1000 - int(time.time())
        self.options, self.data = options, data
        self.environment = {**os.environ, "LD_PRELOAD": str(options.clock.resolve()), "CLOCK_OFFSET_S": str(offset)}
        command = [options.binaries / "highwater", "serve", f"--data-dir={data}", "--listen=127.0.0.1:0", "--accept-clock"]
        command += ["--http=127.0.0.1:0", "--memory=512MiB", f"--cores={min(os.sched_getaffinity(0))}", *KEPT, *more]
        self.log = data.with_suffix(".log")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log.open("ab"), env=self.environment)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the engine did not start:\n{self.log.read_text()}")
        self.ready = json.loads(line)

    def replay(self, path):
        command = [self.options.binaries / "loadgen", "replay", path, f"--engine={self.ready['listen'][0]}"]
        ended = subprocess.run([*command, f"--ca={self.ready['ca']}", "--batch=512"], env=self.environment, capture_output=True)
        told = json.loads(ended.stdout) if ended.returncode == 0 else {}
        if ended.returncode != 0 or told["views_acked"] != told["views_sent"]:
            raise SystemExit(f"not every view was accepted: {ended.stdout} {ended.stderr}")
        return told["views_acked"]

    def ask(self, path, **question):
        url = f"http://{self.ready['http']}{path}?{urllib.parse.urlencode(question)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=30) as answer:
            return json.load(answer)

    def lists(self):
        """Every window's list, as of one epoch, without what differs from run to run."""
        epoch = self.ask("/v1/videos/top", period="hour", k=1)["epoch"] + 2
        found = {}
        for window, period in WINDOWS:
            answer = self.ask("/v1/videos/top", period=period, window=window, k=1000, min_epoch=epoch)
            found[window, period] = (answer["total_views"], answer["other_views"], answer["top_videos"])
        return found

    def wait_for(self, period, start):
        until = time.monotonic() + WAIT_S_MAX
        while True:
            try:
                return self.ask("/v1/videos/top", period=period, window="tumbling", start=start, k=1)
            except urllib.error.HTTPError as error:
                told = json.load(error)
                if time.monotonic() > until or not told["type"].endswith("not-final"):
                    raise SystemExit(f"{period} {start} was not closed: {told}") from error
            time.sleep(1)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=WAIT_S_MAX) != 0:
            raise SystemExit(f"the engine did not end cleanly:\n{self.log.read_text()}")


def tool(options, *arguments, environment=None):
    ended = subprocess.run([options.binaries / "highwater", *arguments], capture_output=True, text=True, env=environment)
    return ended.returncode, ended.stdout + ended.stderr


def export(options, data, table):
    """The rows of a table, in an order of their own: slots are given in order of arrival."""
    out = data.with_suffix(f".{table}.csv")
    code, said = tool(options, "export", f"--data-dir={data}", f"--table={table}", f"--out={out}", "--force")
    if code != 0:
        raise SystemExit(f"the export of {table} failed: {said}")
    with out.open(newline="", encoding="utf-8") as file:
        return sorted(map(tuple, csv.reader(file)))


def expected(rows):
    """The top 1000 of each calendar hour, day and month, counted here."""
    counts = defaultdict(Counter)
    for video, ms, *_ in rows:
        when = moment(int(ms))
        day = when.replace(hour=0, minute=0, second=0, microsecond=0)
        for period, start in [("hour", when.replace(minute=0, second=0, microsecond=0)), ("day", day), ("month", day.replace(day=1))]:
            counts[period, text(start)][video] += 1
    lists = set()
    for (period, start), videos in counts.items():
        ranked = sorted(videos.items(), key=lambda one: (-one[1], one[0].encode()))[:1000]
        lists.update((period, start, video, str(n), str(rank)) for rank, (video, n) in enumerate(ranked, 1))
    return counts, lists


def run(options, name, rows, newest_ms, last_starts):
    data = options.folder / name
    path = options.folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "ts_ms", "user_id", "region", "device"])
        writer.writerows(rows)
    engine = Engine(options, data, newest_ms + MINUTE_MS)
    acked = engine.replay(path)
    found = {"lists": engine.lists()}
    engine.stop()
    for table in ["minute", "hour", "day"]:
        found[table] = export(options, data, table)
    # A leap beyond the lateness of the month that is not over; the engine starts just before the end of a minute, since periods are closed then.
    leapt = (newest_ms // MINUTE_MS + 535 * 24 * 60) * MINUTE_MS + 48_000
    engine = Engine(options, data, leapt)
    for period, start in last_starts:
        engine.wait_for(period, start)
    found["top"] = export(options, data, "top")
    served = [f"--engine={engine.ready['listen'][0]}", f"--ca={engine.ready['ca']}"]
    # Certificates are good for years, but at the engine's clock.
    audit = tool(options, "audit", f"--data-dir={data}", *served, environment=engine.environment)
    engine.stop()
    print(f"{name}: {acked} views; audit exit {audit[0]}: {audit[1].strip().splitlines()[-1]}", flush=True)
    return found, audit


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=Path, required=True, help="folder of highwater and loadgen")
    parser.add_argument("--clock", type=Path, required=True, help="clock.c, compiled")
    parser.add_argument("--seed", type=int, default=1, help="of the shuffle")
    parser.add_argument("views", type=Path)
    options = parser.parse_args()
    opened = gzip.open if options.views.suffix == ".gz" else open
    with opened(options.views, "rt", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    rows.sort(key=lambda row: int(row[1]))
    newest_ms = int(rows[-1][1])
    counts, wanted = expected(rows)
    last_starts = [(period, max(start for kind, start in counts if kind == period)) for period in ["hour", "day", "month"]]
    shuffled = rows[:]
    random.Random(options.seed).shuffle(shuffled)
    options.folder = Path(tempfile.mkdtemp(prefix="data-", dir=options.clock.parent))
    differences = 0
    try:
        results = {}
        for name, order in [("in-order", rows), ("reversed", rows[::-1]), ("shuffled", shuffled)]:
            results[name], audit = run(options, name, order, newest_ms, last_starts)
            differences += audit[0]
            if audit[0]:
                print(audit[1])
        first = results["in-order"]
        for what in first:
            digest = hashlib.sha256(repr(first[what]).encode()).hexdigest()[:12]
            same = all(result[what] == first[what] for result in results.values())
            differences += not same
            print(f"  {'same' if same else 'DIFFERS'}: {what}: {len(first[what])} of each, {digest}")
        header = next(row for row in first["top"] if row[0] == "period")
        at = [header.index(name) for name in ["period", "start_time", "video_id", "view_count", "rank"]]
        listed = {tuple(row[index] for index in at) for row in first["top"] if row != header}
        missing, surplus = len(wanted - listed), len(listed - wanted)
        differences += missing + surplus
        print(f"  closed lists against a count of the file: {len(wanted)} rows in {len(counts)} periods, {missing} missing, {surplus} surplus")
    finally:
        shutil.rmtree(options.folder)
    print(f"{differences} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
