//! Writes the seeds of every corpus: real encodings, made by the engine's own writers.
//!
//! `cargo run -p highwater-fuzz-targets --bin seeds [FOLDER]` from the workspace; what it writes is called `seed-…`, in
//! the kept corpora unless another folder is named. Invariant: the same bytes each time.
#![allow(clippy::unwrap_used, reason = "a seed that cannot be made is a bug of this program")]

use std::path::{Path, PathBuf};
use std::{env, fs};

use highwater_fuzz_targets::{DIRECTORY, SHARDS, directory};
use highwater_proto::{
    BATCH_BYTES_MAX, BATCH_VIEWS_MAX, BatchBuilder, ENCODING_PLAIN_BIT, ENCODINGS, Epoch, FRAME_HEADER_BYTES,
    FrameHeader, FrameKind, ProducerId, Pushed, RefusedRange, Sequence, View, ViewRefusal, batch_header,
};
use highwater_ranking::{CalendarPeriod, CoreCut, FinalityClass, LateViews, Minute, ShardCut, SlotCount};
use highwater_storage::{
    AppendRoom, ArchivePlan, ArchiveRetention, BatchVerdict, ClosedList, CorePart, Directory, Disk, History,
    HistoryNeeds, LogDevice, LogLimits, LogNumber, LogWriter, MemoryDisk, MemoryLogDevice, OWNER_BYTES, OpenOptions,
    OwnerId, PreparedCut, ProducerImage, ProducerTableImage, RecordKind, RecordMeta, RollupRule, StorageError, Store,
    run_rollup,
};

const LOG: LogNumber = LogNumber(0);
/// As short as a writer takes.
const WRITER_SEGMENT_BYTES: u64 = 1200 << 10;
const MINUTE: u32 = 28_683_360;
const PAGE: &str = include_str!("../../../../../proto/PROTOCOL.md");

fn main() {
    frames_and_batches();
    directory_files();
    lists();
    texts();
}

fn seed(target: &str, name: &str, parts: &[&[u8]]) {
    let kept = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    let folder = env::args_os().nth(1).map_or_else(kept, PathBuf::from).join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("seed-{name}")), parts.concat()).unwrap();
}

/// A file twice: as it is, and to be mended.
fn seed_file(target: &str, name: &str, bytes: &[u8]) {
    seed(target, name, &[&[0], bytes]);
    seed(target, &format!("{name}-mended"), &[&[1], bytes]);
}

/// Every example of PROTOCOL.md.
fn frames_and_batches() {
    for block in PAGE.split("```hex").skip(1) {
        // A fence says also what a client may do without.
        let (_, block) = block.split_once(' ').unwrap();
        let (name, block) = block.split_once('\n').unwrap();
        let (block, _) = block.split_once("```").unwrap();
        let numbers = block.lines().flat_map(|line| line.split('#').next().unwrap().split_whitespace());
        let bytes: Vec<u8> = numbers.map(|number| u8::from_str_radix(number, 16).unwrap()).collect();
        let (header, payload) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().unwrap();
        let kind = FrameHeader::decode(header).unwrap().kind;
        seed("frames", &format!("header-{name}"), &[header]);
        if kind == FrameKind::Batch {
            seed("batches", name, &[payload]);
        } else {
            let index = FrameKind::ALL.iter().position(|one| *one == kind).unwrap();
            seed("frames", name, &[&[index as u8], payload]);
        }
    }
    for views in [1, 3, 40] {
        seed("batches", &format!("of-{views}"), &[&batch(ENCODING_PLAIN_BIT, 1, views)]);
    }
    for views in [40, 300] {
        seed("batches", &format!("compact-of-{views}"), &[&batch(ENCODINGS, 1, views)]);
    }
    seed("batches", "compact-of-many", &[&many_videos()]);
}

/// The payload of a batch.
fn batch(encodings: u32, sequence: u64, views: u32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32).with_encodings(encodings);
    for index in 0..views {
        let video_id = format!("vidéo-{}", index % 7);
        let timestamp_ms = u64::from(MINUTE + index % 90) * 60_000 + u64::from(index);
        let view = View { video_id: &video_id, timestamp_ms, user_id: "u1", region: "DE", device: "" };
        assert_eq!(builder.push(&view).unwrap(), Pushed::Added);
    }
    builder.encode(ProducerId(9), Sequence(sequence))[FRAME_HEADER_BYTES..].to_vec()
}

/// The payload of a batch with so many videos that indices have two bytes, at times that differ by less than 256.
fn many_videos() -> Vec<u8> {
    let mut builder = BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32).with_encodings(ENCODINGS);
    for index in 0..900_u32 {
        let video_id = format!("a-longer-id-{}", index % 260);
        let timestamp_ms = u64::from(MINUTE) * 60_000 + u64::from(index % 200);
        let view = View { video_id: &video_id, timestamp_ms, user_id: "", region: "DE", device: "tv" };
        assert_eq!(builder.push(&view).unwrap(), Pushed::Added);
    }
    builder.encode(ProducerId(9), Sequence(1))[FRAME_HEADER_BYTES..].to_vec()
}

/// A data directory with logs, cuts, a base and an archive.
struct Engine {
    disk: MemoryDisk,
    store: Store<MemoryDisk>,
    writer: LogWriter,
    device: MemoryLogDevice,
    appended: u64,
    cuts: u64,
}

impl Engine {
    fn start() -> Self {
        let disk = MemoryDisk::new();
        let directory = Directory { segment_bytes: WRITER_SEGMENT_BYTES, ..directory() };
        let archive = Some(ArchiveRetention { age_ms: u64::MAX, bytes: u64::MAX });
        let rollup = RollupRule { cuts_min: 2, cuts_max: 2, ..RollupRule::default() };
        let options = OpenOptions { cut_reserve_bytes: 0, archive, rollup, ..OpenOptions::new(directory) };
        let mut store = Store::open(disk.clone(), options).unwrap();
        store.replay_cuts::<StorageError>(|_| Ok(())).unwrap();
        store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
        store.open_generations(1).unwrap();
        let limits = LogLimits {
            buffers: 2,
            buffer_bytes: WRITER_SEGMENT_BYTES as usize,
            segment_bytes: WRITER_SEGMENT_BYTES,
            ..LogLimits::default()
        };
        let writer = LogWriter::new(store.log_identity(LOG), limits);
        let device = MemoryLogDevice::new(&disk, 3, 5);
        Self { disk, store, writer, device, appended: 0, cuts: 0 }
    }

    fn room(&mut self, batch_len: usize) {
        loop {
            match self.writer.room(batch_len) {
                AppendRoom::Ready => return,
                AppendRoom::Busy => self.settle(),
                AppendRoom::NoSegment => {
                    let segment = self.store.prepare_segment(LOG).unwrap();
                    let handle = self.device.attach(&segment).unwrap();
                    self.writer.add_segment(&segment, handle);
                }
            }
        }
    }

    /// Appends a batch, of which the second view is refused where there is one.
    fn append(&mut self, views: u32) {
        self.appended += 1;
        let payload = batch(ENCODING_PLAIN_BIT, self.appended, views);
        self.room(payload.len());
        self.writer.begin(payload.len()).copy_from_slice(&payload);
        let meta = RecordMeta {
            kind: RecordKind::Batch,
            producer: ProducerId(9),
            sequence: Sequence(self.appended),
            arrival_ms: 1000 * self.appended,
            batch_crc: batch_header(&payload).unwrap().crc,
            view_count: views,
        };
        let refused = RefusedRange { first: 1, count: 1, reason: ViewRefusal::TableFull };
        self.writer.commit(&meta, if views > 1 { std::slice::from_ref(&refused) } else { &[] });
    }

    fn append_new(&mut self) {
        self.room(OWNER_BYTES);
        self.writer.append_producer_new(ProducerId(9), Some(OwnerId(0xfeed)), 5);
    }

    fn settle(&mut self) {
        loop {
            while let Some(write) = self.writer.poll_write() {
                self.device.submit(write).unwrap();
            }
            let Some(written) = self.device.complete() else { return };
            written.result.unwrap();
            self.writer.handle_written(written.write);
            while self.writer.next_durable().is_some() {}
            while let Some(handle) = self.writer.poll_retired() {
                self.device.detach(handle);
            }
        }
    }

    fn cut(&mut self) {
        let first_slot = 3 * self.cuts as u32;
        self.cuts += 1;
        let minute = Minute(MINUTE + self.cuts as u32);
        let shards = (0..SHARDS).map(|shard| ShardCut {
            shard,
            minute,
            first_slot,
            id_lens: vec![1, 2, 3],
            id_bytes: "aébvid".as_bytes()[..6].to_vec(),
            current: vec![SlotCount { slot: 0, count: 300 }, SlotCount { slot: first_slot + 2, count: 1 }],
            late: (0..4u32)
                .map(|late| LateViews::new(Minute(MINUTE - 90 * late), FinalityClass(late as u8), late % 3, 1 + late))
                .collect(),
        });
        let (epoch, time_ms) = (Epoch(self.cuts), u64::from(minute.0) * 60_000);
        let cut = CoreCut { epoch, time_ms, minute, arrivals_from_ms: 7, shards: shards.collect() };
        let position = self.writer.durable_end();
        self.store
            .write_cut(&PreparedCut::new(vec![CorePart { log: LOG, position, cut, producers: producers() }]))
            .unwrap();
    }
}

fn producers() -> ProducerTableImage {
    let range = RefusedRange { first: 1, count: 2, reason: ViewRefusal::TableFull };
    let batch = |sequence, complete| BatchVerdict {
        sequence: Sequence(sequence),
        crc32c: 0xdead_beef,
        counted: 5,
        refused: vec![RefusedRange { first: if complete { 1 } else { u32::MAX }, ..range }],
        complete,
    };
    let owner = |id| (id == 10).then_some(OwnerId(0xfeed));
    let one = |id, entries| ProducerImage {
        id: ProducerId(id),
        owner: owner(id),
        last: Sequence(4),
        last_seen_ms: 1000,
        entries,
    };
    ProducerTableImage { producers: vec![one(9, vec![batch(3, true), batch(4, false)]), one(10, Vec::new())] }
}

fn directory_files() {
    let mut engine = Engine::start();
    engine.append_new();
    (1..=4).for_each(|views| engine.append(views));
    engine.settle();
    engine.append(9);
    engine.settle();
    let segment = engine.disk.contents("log-000/g0000000001-s0000000000.seg");
    let end = engine.writer.durable_end().position as usize;
    seed_file("log", "segment", &segment[..end]);
    seed_file("log", "group", &segment[..1200]);
    engine.cut();
    let cut = engine.disk.contents("cuts/cut-0000000001.cut");
    seed_file("cuts", "cut", &cut);
    let producers_at = 128 + 32 + 16;
    let len = u64::from_le_bytes(*cut[producers_at + 16..].first_chunk().unwrap()) as usize;
    seed("producers", "table", &[&cut[producers_at + 32..][..len]]);
    engine.cut();
    let plan = engine.store.plan_rollup(&HistoryNeeds::NOTHING).unwrap().expect("a roll-up is due");
    let done = run_rollup(&engine.disk, &plan, &mut || false).unwrap();
    engine.store.finish_rollup(&done).unwrap();
    let paths = ["bases/base-0000000002.base", "rollups/minute-0000000001-0000000002.run"];
    let [base, minutes] = paths.map(|path| engine.disk.contents(path));
    let hours = engine.disk.contents("rollups/hour-0000000001-0000000002.run");
    for (name, mode) in [("base", 0), ("base-mended", 1)] {
        let lens = [base.len() as u16, minutes.len() as u16].map(u16::to_le_bytes).concat();
        seed("rollups", name, &[&[mode], &lens, &base, &minutes, &hours]);
    }
    while engine.writer.durable_end().position < WRITER_SEGMENT_BYTES {
        engine.append(8000);
        engine.settle();
    }
    for name in ["directory", "state"] {
        let file = engine.disk.contents(&format!("{name}.hw"));
        let mode = u8::from(name == "state");
        seed("state", name, &[&[mode], &file]);
        seed("state", &format!("{name}-body"), &[&[mode + 2], &file[12..file.len() - 4]]);
    }
    archive();
}

/// A segment with few batches, archived because the generation goes on in the next.
fn archive() {
    let mut engine = Engine::start();
    (1..=3).for_each(|views| engine.append(views));
    engine.settle();
    engine.cut();
    let options = OpenOptions {
        archive: Some(ArchiveRetention { age_ms: u64::MAX, bytes: u64::MAX }),
        ..OpenOptions::new(directory())
    };
    // The next start closes the generation, and with it the segment.
    let mut store = Store::open(engine.disk.clone(), options).unwrap();
    store.replay_cuts::<StorageError>(|_| Ok(())).unwrap();
    store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
    store.open_generations(1).unwrap();
    while let ArchivePlan::Copy(job) = store.plan_archive(0).unwrap() {
        store.archive_done(job.run(&engine.disk, || false)).unwrap();
    }
    let file = engine.disk.contents("archive/views-000-0000000001-0000000000.hwa");
    seed_file("archive", "file", &file);
    let stored_len = u32::from_le_bytes(*file[64 + 72..].first_chunk().unwrap()) as usize;
    let raw = zstd::bulk::decompress(&file[64 + 96..][..stored_len], 1 << 20).unwrap();
    seed("archive", "block", &[&[2, 3], &raw]);
}

fn lists() {
    let disk = MemoryDisk::new();
    let history = History::open(std::sync::Arc::new(disk.clone()), DIRECTORY).unwrap();
    let rows: Vec<(Box<str>, u64)> = vec![("abc".into(), 300), ("é".into(), 2)];
    let (start, end) = (Minute(60), Minute(120));
    let kind = CalendarPeriod::Hour;
    history.write(&ClosedList { kind, start, end, final_ms: 7_800_000, total_views: 310, videos: 5, rows }).unwrap();
    history.set_closed(kind, end).unwrap();
    for (name, mode) in [("hour-0000000060.top", 0), ("closed.hw", 1)] {
        let file = disk.contents(&format!("history/{name}"));
        seed("history", name, &[&[mode], &file]);
        seed("history", &format!("{name}-body"), &[&[mode + 2], &file[12..file.len() - 4]]);
    }
    assert!(disk.exists("history/closed.hw").unwrap());
}

fn texts() {
    let csv = "video_id,ts_ms,user_id,region,device\na,1000,u1,DE,phone\n\"b, \"\"x\"\"\",2000,,,\r\n\né,1500,\"u\n2\",\"\",tv\n";
    seed("replay_csv", "views", &[csv.as_bytes()]);
    seed("replay_csv", "marked", &["\u{feff}".as_bytes(), csv.as_bytes()]);
    for (index, text) in [
        "# comment\n[serve]\ncores = [0, 1]\nhelper-cores = \"2,3\"\nshards = 0x10\naccept-clock = true\n\
         skew-max = \"1m 30s\"\ntls-name = [\"a\", 'b']\n[top]\nrows = 5\n",
        "[serve]\ndata-dir = \"d\"\nmemory = \"4GiB\"\nlisten = \"127.0.0.1:4433\"\n",
        "[sidecar]\nstale-after = \"10s\"\n",
        "[top]\nrows = 3\nengine = \"h:1\"\n[server]\nmemroy = 4\n[[serve]]\na.b = {c = 1, d = [1.5, inf]}\n",
    ]
    .into_iter()
    .enumerate()
    {
        seed("config", &index.to_string(), &[&[index as u8], text.as_bytes()]);
    }
    for (index, query) in [
        (0, "period=hour&k=10&window=tumbling&min_epoch=3"),
        (0, "period=month&window=tumbling&start=2024-06-01T00:00:00Z"),
        (0, "period=day&window=tumbling&start=2024-07-14T02:00:00%2B02:00"),
        (0, "period=all-time"),
        (1, "video_id=v%C3%A9+1"),
        (2, "period=day&limit=7&before=2024-07-15Z"),
    ] {
        let name: String = query.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
        seed("queries", &name, &[&[index], query.as_bytes()]);
    }
    for (name, lines) in [
        ("browser", "\0gzip, deflate, br, zstd"),
        ("qualities", "\0br;q=1.0, GZIP ; Q=0.5, identity;q=0.2, *;q=0\n\0x-gzip"),
        ("any", "\0*\n\u{1}*"),
        ("tags", "\u{1}\"a\", \"b,c\" ,%\n\u{1}%\n\0gzip;q=0"),
    ] {
        seed("headers", name, &[lines.as_bytes()]);
    }
}
