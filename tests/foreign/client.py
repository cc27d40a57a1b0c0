#!/usr/bin/env python3
"""A foreign client of the Highwater protocol, version 1, written from PROTOCOL.md alone (Python 3.11, aioquic).

What it is for: to show that the page is enough. It runs once through what a client meets (hello and redirect, batches
and acknowledgements, a retry, a lost connection and the resume, refusals, snapshots, look-ups, history, two closes), on
an engine with an empty data directory, and compares what the engine ranks with counts of its own, exactly.

What it is not: a library, or fast. It keeps every frame and every view that it has sent in memory, for its checks, and
forgets its producer when it ends; a real producer keeps its id, next sequence and unanswered frames across a crash.
"""
import argparse
import asyncio
import random
import re
import secrets
import socket
import struct
import time
from collections import Counter, deque
from io import BytesIO
from types import SimpleNamespace as Record

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated

VERSION, NEW, RESUME, VIEWS, TIMEOUT, TIMESTAMP_MS_MAX = 1, 1, 2, 10_000, 15.0, 253402300799999
HELLO, WELCOME, REDIRECT, TOKEN, BATCH, ACK, BATCH_REFUSED = 0x01, 0x02, 0x03, 0x04, 0x10, 0x11, 0x12
LOOKUP, LOOKUP_ANSWER, SUBSCRIBE, SNAPSHOT = 0x20, 0x21, 0x30, 0x31
HISTORY, HISTORY_ANSWER, PERIODS, PERIODS_ANSWER = 0x40, 0x41, 0x42, 0x43
ANSWERS = {LOOKUP_ANSWER, HISTORY_ANSWER, PERIODS_ANSWER}  # each alone on its stream
PAYLOAD_MAX = {WELCOME: 455, REDIRECT: 391, ACK: 98336, BATCH_REFUSED: 16, LOOKUP_ANSWER: 403, SNAPSHOT: 1848260,
               HISTORY_ANSWER: 264072, PERIODS_ANSWER: 24048}
RECONNECT = {None, 0, 10, 13, 15}  # close codes after which a producer comes again; None: lost without a code
VERSION_UNSUPPORTED, CHECKSUM_MISMATCH, FUTURE, OUT_OF_RANGE = 2, 3, 1, 3  # two close codes, two reasons of refusal
HOUR, ALL_TIME, NAMES = (0, 0), (3, 0), {(0, 0): "hour", (1, 0): "day", (2, 0): "month", (3, 0): "all-time",
                                         (0, 1): "tumbling hour", (1, 1): "tumbling day", (2, 1): "tumbling month"}
differences: list[str] = []


def check(holds, text):
    print(f"  {'ok' if holds else 'DIFFERS'}: {text}", flush=True)
    differences.extend([] if holds else [text])


CRC_TABLE = list(range(256))
for _ in range(8):
    CRC_TABLE = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in CRC_TABLE]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def frame(kind, payload):
    return struct.pack("<IB3x", len(payload), kind) + payload


def hello(producer, mode, token=b"", version=VERSION):
    return frame(HELLO, struct.pack("<HBxI", version, mode, len(token)) + producer.to_bytes(16, "little") + token)


def batch(producer, sequence, views):
    """One BATCH frame of views (video, time, user, region, device), all columns plain."""
    body = struct.pack("<IQ", len(views), sequence)
    for number, column in enumerate(zip(*views)):
        data = (struct.pack(f"<{len(views)}Q", *column) if number == 1 else
                bytes(len(value.encode()) for value in column) + "".join(column).encode())
        body += struct.pack("<B3xI", 0, len(data)) + data
    crc = crc32c(struct.pack("<H", VERSION) + producer.to_bytes(16, "little") + body)
    return frame(BATCH, struct.pack("<I", crc) + body)


def lookup(video):
    return frame(LOOKUP, struct.pack("<B3x", len(video.encode())) + video.encode())


def history(period, start):
    return frame(HISTORY, struct.pack("<B7xQ", period, start))


def periods(period, limit, before=2**64 - 1):
    return frame(PERIODS, struct.pack("<BxH4xQ", period, limit, before))


class Reader(BytesIO):
    """Takes a payload apart. A negative size is so many reserved bytes, which must be zeros."""

    def take(self, size):
        if len(data := self.read(size)) < size:
            raise ValueError("payload too short")
        return data

    def numbers(self, *sizes):
        numbers = [int.from_bytes(self.take(abs(size)), "little") for size in sizes]
        if any(number for number, size in zip(numbers, sizes) if size < 0):
            raise ValueError("reserved bytes are not zero")
        return [number for number, size in zip(numbers, sizes) if size > 0]

    def rows(self, count):
        return [(views, self.take(size).decode()) for views, size in (self.numbers(8, 1) for _ in range(count))]


def check_list(f):
    if f.total < sum(views for views, _ in f.rows):
        raise ValueError("the total of a list is below the sum of its rows")


def decode(kind, payload):
    """What a frame from the engine says, as a record with about the page's names."""
    r, f = Reader(payload), Record()
    if kind == WELCOME:
        f.version, f.home, cores, f.in_flight_max, f.producer, f.instance, f.last, f.skew_max_ms, \
            f.views_max, f.bytes_max, f.encodings, host = r.numbers(2, 2, 2, 2, 16, 16, 8, 8, 4, 4, 4, 1, -3)
    elif kind == REDIRECT:
        f.home, cores, host = r.numbers(2, 2, 1, -3)
    elif kind == ACK:
        f.sequence, f.epoch, f.counted, f.duplicate, ranges, f.complete = r.numbers(8, 8, 4, 4, 4, 1, -3)
        f.ranges = [tuple(r.numbers(4, 4, 1, -3)) for _ in range(ranges)]  # first view, number of views, reason
    elif kind == BATCH_REFUSED:
        f.sequence, f.reason, f.retry_after_ms = r.numbers(8, 1, -3, 4)
    elif kind == LOOKUP_ANSWER:
        f.instance, f.epoch, f.as_of, counts, size = r.numbers(16, 8, 8, 1, 1, -2)
        f.counts = {tuple(r.numbers(1, 1, -2)): tuple(r.numbers(4, 8)) for _ in range(counts)}  # rank, views
        f.video = r.take(size).decode()
    elif kind == SNAPSHOT:
        f.instance, f.epoch, f.as_of, boards = r.numbers(16, 8, 8, 1, -3)
        f.boards = {}
        for _ in range(boards):
            period, window, has_start, rows, start, end, total = r.numbers(1, 1, 1, -1, 4, 8, 8, 8)
            f.boards[period, window] = Record(has_start=has_start, start=start, end=end, total=total, rows=r.rows(rows))
            check_list(f.boards[period, window])
    elif kind in (HISTORY_ANSWER, PERIODS_ANSWER):
        f.instance, f.period, f.outcome, f.more, has_oldest, count, f.closed_until, oldest, f.lateness_max = \
            r.numbers(16, 1, 1, 1, 1, 4, 8, 8, 8)
        f.oldest = oldest if has_oldest else None
        if kind == HISTORY_ANSWER:
            f.start, f.end, f.total = r.numbers(8, 8, 8)
            f.rows = r.rows(count)
            check_list(f)
        else:
            f.periods = [tuple(r.numbers(8, 8, 8)) for _ in range(count)]  # start, end, views
    else:
        raise ValueError(f"frame of kind {kind:#x} from the engine")
    if kind in (WELCOME, REDIRECT):
        f.ports, f.host = r.numbers(*[2] * cores), r.take(host).decode()
    if r.read():
        raise ValueError("payload too long")
    return f


def self_test(page):
    """The page's vectors and its examples: those of the client are encoded here, those of the engine decoded."""
    vectors = {b"123456789": 0xE3069283, bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, b"": 0,
               bytes(range(32)): 0x46DD794E, bytes(range(31, -1, -1)): 0x113FDB5C}
    check(all(crc32c(data) == crc for data, crc in vectors.items()), "CRC32C of the 6 test vectors")
    examples = {name: bytes.fromhex(re.sub("#.*", "", text))
                for name, text in re.findall(r"^```hex (\S+)\n(.*?)^```", page, re.S | re.M)}
    got = {name: decode(data[4], data[8:]) for name, data in examples.items() if data[4] in PAYLOAD_MAX}
    producer, video = 0x000102030405060708090A0B0C0D0E0F, "dQw4w9WgXcQ"
    views = [(video, 1721044800000, "user-0000001", "DE", "tv"), ("Zürich", 1721044801234, "", "", "phone")]
    mine = {"hello": hello(producer, NEW, b"s3cret"), "hello-resume": hello(producer, RESUME),
            "token": frame(TOKEN, b"\6\0\0\0s3cret"), "batch": batch(producer, 8, views), "lookup": lookup(video),
            "subscribe": frame(SUBSCRIBE, b"*" + bytes(7)), "history": history(1, 1720915200000), "periods": periods(1, 2)}
    check(mine == {name: data for name, data in examples.items() if name not in got}, "the client's examples, encoded")
    w, a, d, hour = got["welcome"], got["ack"], got["ack-duplicate"], got["snapshot"].boards[HOUR]
    facts = [(w.home, w.ports, w.last), (a.counted, a.duplicate, a.ranges), (d.counted, d.duplicate, d.ranges),
             hour.rows, hour.total, got["redirect"].host, got["batch-refused"].retry_after_ms,
             got["lookup-answer"].counts[ALL_TIME]]
    check(facts == [(1, [4433, 4434], 7), (1, 0, [(1, 1, FUTURE)]), (0, 1, [(0xFFFFFFFF, 1, FUTURE)]),
                    [(900, video), (900, "zürich")], 2500, "engine.example", 250, (0, 1234567)],
          "the engine's, decoded")
    h, none, p, day = got["history-answer"], got["history-answer-none"], got["periods-answer"], 86_400_000
    facts = [(h.outcome, h.start, h.end, h.total, h.rows), (none.outcome, none.oldest, none.rows, none.lateness_max),
             (p.more, p.periods)]
    check(facts == [(1, 1720915200000, h.closed_until, 987654, hour.rows), (0, None, [], 600_000),
                    (1, [(h.start, h.end, 987654), (h.start - 2 * day, h.start - day, 4321)])], "history, decoded")


class Closed(Exception):
    """The connection ended: with the engine's code, or with None when it was lost without one; and a reason."""


class Connection(QuicConnectionProtocol):
    closed = None  # or why it ended

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):  # a frame type is named where QUIC or TLS closed, not the engine
            self.closed = Closed(event.error_code if event.frame_type is None else None, event.reason_phrase)
        super().quic_event_received(event)

    async def keep_alive(self):
        while not self.closed:
            await asyncio.sleep(1)
            self._quic.send_ping(0)
            self.transmit()

    async def open(self, first_frame):
        reader, writer = await self.create_stream()
        writer.write(first_frame)
        return Record(connection=self, reader=reader, writer=writer)

    async def done(self):
        self.close(0, "done")
        await asyncio.wait_for(self.wait_closed(), TIMEOUT)
        self._transport.close()

    def drop(self):
        self.closed = Closed(None, "dropped by this client")  # from here on nothing is sent and nothing is heard
        self.transmit = lambda: None
        self._transport.close()
        for reader in self._stream_readers.values():
            reader.feed_eof()


async def receive(stream):
    """The next frame as (kind, record); (None, None) when the engine has ended its side."""
    try:
        async with asyncio.timeout(TIMEOUT):
            size, kind = Reader(await stream.reader.readexactly(8)).numbers(4, 1, -3)
            if size > PAYLOAD_MAX.get(kind, 0):
                raise ValueError(f"frame of kind {kind:#x} with {size} bytes from the engine")
            return kind, decode(kind, await stream.reader.readexactly(size))
    except asyncio.IncompleteReadError as end:
        if stream.connection.closed or end.partial:
            raise stream.connection.closed or ValueError("stream ended within a frame") from None
        return None, None


async def dial(ca, host, port):
    config = QuicConfiguration(alpn_protocols=["highwater/1"], cafile=ca, server_name=host, idle_timeout=10.0)
    loop = asyncio.get_running_loop()
    family, *_, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
    _, connection = await loop.create_datagram_endpoint(
        lambda: Connection(QuicConnection(configuration=config)),
        local_addr=("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
    try:
        connection.connect(address)
        await asyncio.wait_for(connection.wait_connected(), TIMEOUT)
    except ConnectionError:
        raise connection.closed or Closed(None, "no connection") from None
    connection.alive = asyncio.create_task(connection.keep_alive())
    return connection


async def ask(dialled, question, pool=None):
    """Opens a stream with a HELLO, or with a question if there is a pool of connections, and follows redirects."""
    ca, host, port = dialled
    for redirects in range(4):
        connection = pool and pool.get((host, port)) or await dial(ca, host, port)
        stream = await connection.open(question)
        if pool is not None:
            stream.writer.write_eof()
            pool[host, port] = connection
        kind, stream.answer, stream.redirects = *await receive(stream), redirects
        if kind == WELCOME:
            w = stream.welcome = stream.answer
            check(w.version == VERSION and w.producer.to_bytes(16, "little") == question[16:32] and w.encodings & 1,
                  f"welcome by core {w.home} of {len(w.ports)} after {redirects} redirects, last {w.last}")
            return stream
        if kind not in {REDIRECT, *ANSWERS} or await receive(stream) != (None, None):
            raise ValueError(f"frame of kind {kind}, where an answer or a redirect and the end of the stream are due")
        if kind in ANSWERS:
            return stream
        if pool is None:
            await connection.done()
        host, port = stream.answer.host or host, stream.answer.ports[stream.answer.home]
    raise ValueError("redirected more than 3 times in a row")


class Producer:
    """Sends batches in order, reads answers, and keeps to the rules of the page's section Sessions."""

    def __init__(self, dialled, producer, stream):
        self.dialled, self.id, self.stream = dialled, producer, stream
        self.views, self.frames, self.acks, self.answered = {}, {}, {}, set()  # by sequence
        self.queue, self.unanswered, self.sent = deque(), 0, 0  # to send; sendings without answer; highest sent
        self.refused, self.refusals = {}, Counter()  # how long to wait by sequence; how many by reason

    def add(self, batches):
        for sequence, views in enumerate(batches, len(self.frames) + 1):
            self.views[sequence], self.frames[sequence] = views, batch(self.id, sequence, views)
            self.queue.append(sequence)

    def send(self):
        while self.queue and not self.refused and self.unanswered < self.stream.welcome.in_flight_max:
            sequence = self.queue.popleft()
            self.stream.writer.write(self.frames[sequence])  # never blocks: aioquic keeps what QUIC holds back
            self.sent, self.unanswered = max(self.sent, sequence), self.unanswered + 1

    async def settle(self):
        """Sends all that is queued and waits for every answer; reconnects where the page says so."""
        lost = 0.0  # how long to wait before the next attempt to reconnect
        while lost or self.queue or self.unanswered or self.refused:
            try:
                if lost:
                    await asyncio.sleep(lost * random.uniform(0.5, 1))
                    await self.resume()
                    lost = 0.0
                if self.refused and not self.unanswered:  # only when all that was on the way is answered
                    await asyncio.sleep(max(self.refused.values()) / 1000)
                    self.queue.extendleft(sorted(self.refused, reverse=True))
                    self.refused = {}
                self.send()
                if self.unanswered:
                    self.take_answer(*await receive(self.stream))
            except Closed as closed:
                if closed.args[0] not in RECONNECT:
                    raise
                lost = min(2 * lost, 1.0) or 0.01
                print(f"  {closed.args}; reconnecting", flush=True)

    def take_answer(self, kind, answer):
        self.unanswered -= 1
        if kind == BATCH_REFUSED:
            self.refused[answer.sequence] = answer.retry_after_ms
            self.refusals[answer.reason] += 1
        elif kind == ACK:
            self.acks.setdefault(answer.sequence, []).append(answer)
            total = answer.counted + answer.duplicate + sum(number for _, number, _ in answer.ranges)
            if total != len(self.views[answer.sequence]) or answer.counted and answer.duplicate:
                check(False, f"the ACK of {answer.sequence} accounts for all views")
        else:
            raise ValueError(f"frame of kind {kind} on the producer stream")

    async def resume(self):
        stream = await ask(self.dialled, hello(self.id, RESUME))
        w, known = stream.welcome, self.stream.welcome.instance
        if w.instance != known or not max(self.acks, default=0) <= w.last <= self.sent:
            raise ValueError(f"last {w.last}: not the engine this producer knows")
        self.stream, self.unanswered, self.refused = stream, 0, {}
        self.answered = set(self.acks)  # before the connection was lost, however shortly
        self.queue = deque(sequence for sequence in self.frames if sequence not in self.acks)


def made_up_views(now):
    """Views of 300 videos with a fixed seed: recent, old, a little ahead, and some that will be refused."""
    rng, day, names = random.Random(20240715), 86_400_000, ["a{}", "Zürich-{}", "видео-{}", "動画-{}", "{}" + "x" * 252]
    videos = [names[n % 5].format(f"{n:03}") for n in range(300)]
    times = [now - rng.randrange(-30_000, day * rng.choice([1, 1, 20, 800, 60000]) // 20) for _ in range(VIEWS)]
    times[17] = times[18] = times[5000] = now + day
    times[700], times[5001] = TIMESTAMP_MS_MAX + 1, 0
    return [(videos[int(300 * rng.random() ** 3)], time_ms, rng.choice(["", f"user-{rng.randrange(999)}"]),
             rng.choice(["DE", "JP", "", "Österreich"]), rng.choice(["tv", "phone", "web", ""])) for time_ms in times]


async def produce(dialled, cores_one):
    print("1. hello at a core that is not home")
    for producer in (first := secrets.randbits(128)), first ^ 1:  # only the welcome tells which core was dialled
        stream = await ask(dialled, hello(producer, NEW))
        if stream.redirects or len(stream.welcome.ports) == 1:
            break
        await stream.connection.done()
    check(stream.redirects or len(stream.welcome.ports) == 1 and cores_one,
          f"{stream.redirects} redirects by an engine with {len(stream.welcome.ports)} cores")
    print(f"2. {VIEWS} views")
    views, client = made_up_views(int(time.time() * 1000)), Producer(dialled, producer, stream)
    size = min(400, stream.welcome.views_max, (stream.welcome.bytes_max - 56) // 1032)  # 1032: the largest view
    batches = [views[start:start + size] for start in range(0, VIEWS, size)]
    client.add(batches[:8])
    for sequence in 8, 2:  # batch 8 again at once, perhaps before it is durable; then batch 2, which is
        client.queue.append(sequence)
        await client.settle()
    for first, again in client.acks[2], client.acks[8]:
        check((again.counted, again.duplicate, again.ranges) == (0, first.counted, first.ranges),
              f"batch {first.sequence} sent twice: counted {first.counted}, then duplicate {again.duplicate}")
    client.add(batches[8:16])
    client.send()
    await asyncio.sleep(0.004)  # so that a part gets through
    client.stream.connection.drop()
    await client.settle()
    last, answered = client.stream.welcome.last, client.answered & set(range(9, 17))
    acks = [client.acks[sequence][0] for sequence in range(9, 17) if sequence not in answered]
    check(all((ack.counted == 0) == (ack.sequence <= last) for ack in acks),
          f"of batches 9 to 16 {len(answered)} were answered before; of the others those to {last} were durable and came "
          "back as duplicates, and the rest was counted now")
    client.add(batches[16:])
    await client.settle()
    accepted, reasons = [], Counter()
    for sequence, (ack, *_) in client.acks.items():
        refused = {first + n: reason for first, number, reason in ack.ranges for n in range(number)}
        reasons.update(refused.values())
        accepted += [view for index, view in enumerate(client.views[sequence]) if index not in refused]
    check(reasons == {FUTURE: 3, OUT_OF_RANGE: 1} and len(accepted) == VIEWS - 4,
          f"ACKs of {len(client.acks)} batches: {len(accepted)} views count, refused by reason {dict(reasons)}")
    print(f"3. batches refused by reason: {dict(client.refusals) or 'none, so nothing was shown about them'}")
    await client.stream.connection.done()
    return accepted, max(ack.epoch for acks in client.acks.values() for ack in acks), client.stream.welcome


def ranking(views, board):
    counts = Counter(view[0] for view in views if not board.has_start or board.start <= view[1] < board.end)
    return sorted(((number, video) for video, number in counts.items()), key=lambda row: (-row[0], row[1].encode()))


async def snapshot_from(stream, epoch):
    snapshot = None
    while not snapshot or snapshot.epoch < epoch:
        _, snapshot = await receive(stream)
    return snapshot


async def follow(dialled, accepted, epoch, welcome):
    """Steps 4 to 7: what the engine ranks and counts, against the same from the accepted views; then two closes."""
    print("4. snapshots")
    connections = {dialled[1:]: await dial(*dialled)}
    feed = await connections[dialled[1:]].open(frame(SUBSCRIBE, bytes(8)))
    snapshot = await snapshot_from(feed, epoch)
    check({HOUR, ALL_TIME} <= set(snapshot.boards) and snapshot.instance == welcome.instance,
          f"snapshot of epoch {snapshot.epoch}, visible from {epoch}")
    for key, board in sorted(snapshot.boards.items()):
        rows = ranking(accepted, board)
        check(board.rows == rows[:1000] and board.total == sum(n for n, _ in rows), f"{NAMES.get(key, key)}: "
              f"{board.total} views, {len(board.rows)} videos listed, in [{board.start}, {board.end})")
    print("5. look-ups")
    for video in [snapshot.boards[ALL_TIME].rows[0][1], "Zürich-001", "Zürich-006", "Zürich-011", "never viewed"]:
        bounds = None  # an answer has the windows of its epoch: ask between two snapshots with the same ones
        while bounds != (bounds := [(key, board.start, board.end) for key, board in sorted(snapshot.boards.items())]):
            answer = (stream := await ask(dialled, lookup(video), connections)).answer
            snapshot = await snapshot_from(feed, max(answer.epoch, snapshot.epoch + 1))
        ranks = {key: enumerate(ranking(accepted, board), 1) for key, board in snapshot.boards.items()}
        expected = {key: (rank, n) for key, rows in ranks.items() for rank, (n, name) in rows if name == video}
        check(answer.video == video and answer.instance == welcome.instance and answer.counts == expected,
              f"{video} after {stream.redirects} redirects: {[(NAMES[key], *n) for key, n in expected.items()]}")
    print("6. history")
    for period in range(3):
        listed = (await ask(dialled, periods(period, 1000), connections)).answer
        check(listed.outcome == 1 and listed.instance == welcome.instance and not listed.more,
              f"{NAMES[period, 0]}: {len(listed.periods)} closed periods, closed until {listed.closed_until}")
        for start, end, total in listed.periods:  # an engine that has just been started has none, most of the time
            closed = (await ask(dialled, history(period, start), connections)).answer
            check((closed.outcome, closed.end, closed.total) == (1, end, total) and end <= closed.closed_until,
                  f"its list from {start}: {total} views, {len(closed.rows)} videos listed")
        begins = snapshot.as_of - snapshot.as_of % 3_600_000  # the current hour is never closed
        current = (await ask(dialled, history(period, begins), connections)).answer
        check((current.outcome, current.start, current.rows) == (0, begins, []), "no list of what is not closed")
    for connection in connections.values():
        await connection.done()
    print("7. closes")
    producer = secrets.randbits(128)
    bad = await ask(dialled, hello(producer, NEW))
    other = await (await dial(*dialled)).open(hello(producer, NEW, version=2))
    good = batch(producer, 1, [("x", 0, "", "", "")])
    bad.writer.write(good[:8] + bytes([good[8] ^ 1]) + good[9:])
    for name, code, stream in ("wrong checksum", CHECKSUM_MISMATCH, bad), ("version 2", VERSION_UNSUPPORTED, other):
        try:
            check(False, f"{name}: answered by {await receive(stream)}")
        except Closed as closed:
            check(closed.args[0] == code, f"{name}: closed with {closed.args}")


async def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engine", required=True, metavar="HOST:PORT")
    parser.add_argument("--ca", required=True, metavar="FILE")
    parser.add_argument("--protocol", default="PROTOCOL.md", metavar="FILE", help="the page, for its examples")
    parser.add_argument("--cores-one", action="store_true", help="one core is fine: do without the redirect")
    options = parser.parse_args()
    host, _, port = options.engine.rpartition(":")
    dialled = options.ca, host.strip("[]"), int(port)
    try:
        print("0. self-test against the page")
        self_test(open(options.protocol, encoding="utf-8").read())
        async with asyncio.timeout(180):
            await follow(dialled, *await produce(dialled, options.cores_one))
    except (Closed, OSError, ValueError, TimeoutError) as error:
        check(False, f"stopped by {error!r}")
    print(f"FAILED: {len(differences)} differ: " + "; ".join(differences) if differences else "OK: all agrees")
    return 1 if differences else 0

if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
