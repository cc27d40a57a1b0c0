//! The part `log`: the log's own writer and device on the real disk, group size and depth against latency.
//!
//! Not an engine: records are ready at once, and nobody waits for them but this loop. Invariant: at each moment as many
//! groups are in flight as the depth says, but at a segment's end each of the size given.

use crate::Bench;
use crate::report::Report;
use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use highwater_disk::{FileDisk, UringLog};
use highwater_loadgen::process::{cpu, engine::new_folder};
use highwater_loadgen::table::{aligned, cells};
use highwater_memory::AlignedBuffer;
use highwater_proto::{ProducerId, Sequence};
use highwater_storage::{
    Access, AppendRoom, DirectoryId, Disk, LogDevice, LogIdentity, LogLimits, LogNumber, LogWriter, PreparedSegment,
    RecordKind, RecordMeta, SegmentNumber,
};
use rustix::event::{PollFd, PollFlags, poll};
use std::path::Path;
use std::time::{Duration, Instant};

const GROUP_KIB: [usize; 3] = [64, 256, 1024];
const DEPTHS: [usize; 3] = [1, 4, 8];
/// Bytes of one record's batch: with its header it stays below the smallest group.
const BATCH_BYTES: usize = (64 << 10) - 512;
/// Segment files that are gone through in turn.
const FILES: u64 = 12;

/// Bytes of zeros that are written and synced at a time.
const ZEROS: usize = 1 << 20;

/// Longest latency told apart from longer ones: a minute.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What one size and depth gave.
struct Figures {
    mb_per_s: f64,
    writes: u64,
    latency_us: Histogram<u64>,
}

pub(crate) fn measure(bench: &Bench) -> Result<Report> {
    let (cpu, segment_bytes) = (bench.engine.engine_cpu, bench.or_tiny(64 << 20, 4 << 20));
    let duration = bench.or_tiny(Duration::from_secs(bench.seconds.min(3)), Duration::from_millis(100));
    let run = move || {
        cpu::confine_current_thread(&[cpu])?;
        lines(segment_bytes, duration)
    };
    let lines = std::thread::Builder::new().spawn(run).context("no thread")?;
    let lines = lines.join().map_err(|_| anyhow!("the log's thread panicked"))??;
    let mut report = Report::default();
    report.say(format!(
        "The engine's own writer (`LogWriter`) and device (io_uring, direct, durable at completion) in files of {} MiB \
         below `TMPDIR`, each written with zeros before, past the system's cache, for {duration:?} each: depth is the \
         groups in flight, latency from handing a group to the device until it is durable.",
        segment_bytes >> 20
    ));
    report.say(aligned(&lines, 0));
    Ok(report)
}

fn lines(segment_bytes: u64, duration: Duration) -> Result<Vec<Vec<String>>> {
    let folder = new_folder()?;
    prepare(folder.path(), segment_bytes)?;
    let mut lines = vec![cells(&["group KiB", "depth", "MB/s", "writes", "p50 us", "p99 us", "max us"])];
    for group_kib in GROUP_KIB {
        for depth in DEPTHS {
            eprintln!("results: log: {group_kib} KiB, depth {depth}");
            let figures = write(folder.path(), segment_bytes, group_kib << 10, depth, duration)?;
            let us = |quantile| figures.latency_us.value_at_quantile(quantile).to_string();
            lines.push(vec![
                group_kib.to_string(),
                depth.to_string(),
                format!("{:.0}", figures.mb_per_s),
                figures.writes.to_string(),
                us(0.5),
                us(0.99),
                figures.latency_us.max().to_string(),
            ]);
        }
    }
    Ok(lines)
}

/// Files as the store prepares them: zeros written past the system's cache, durable.
fn prepare(folder: &Path, segment_bytes: u64) -> Result<()> {
    let disk = FileDisk::open(folder)?;
    let zeros = AlignedBuffer::zeroed(ZEROS);
    for number in 0..FILES {
        let file = disk.open(&name(number), Access::CreateDirect).context("a segment cannot be made")?;
        for offset in (0..segment_bytes).step_by(ZEROS) {
            file.write_at(&zeros, offset).and_then(|()| file.sync()).context("a segment cannot be zeroed")?;
        }
    }
    Ok(())
}

fn name(number: u64) -> String {
    format!("segment-{}", number % FILES)
}

fn write(folder: &Path, segment_bytes: u64, group_bytes: usize, depth: usize, time: Duration) -> Result<Figures> {
    let identity = LogIdentity { directory: DirectoryId(1), log: LogNumber(0), generation: 1 };
    // A group that overtakes others keeps its buffer until they are written as well.
    let limits = LogLimits { buffers: 2 * depth + 1, submit_bytes: 1, depth, segment_bytes, ..LogLimits::default() };
    let mut writer = LogWriter::new(identity, limits);
    let mut device = UringLog::open(folder, depth).context("io_uring")?;
    let (mut records, mut segments, mut started, mut bytes) = (0, 0, Vec::new(), 0);
    let mut latency_us = Histogram::<u64>::new_with_max(LATENCY_US_MAX, 3).context("no histogram")?;
    let began = Instant::now();
    loop {
        'filling: while began.elapsed() < time && device.in_flight() < depth {
            while records < group_bytes >> 16 {
                match writer.room(BATCH_BYTES) {
                    AppendRoom::Ready => {
                        writer.begin(BATCH_BYTES).fill(records as u8);
                        writer.commit(&META, &[]);
                        records += 1;
                    }
                    AppendRoom::NoSegment => {
                        let (log, generation) = (identity.log, identity.generation);
                        let number = SegmentNumber(segments);
                        let segment = PreparedSegment { log, generation, number, path: name(segments) };
                        writer.add_segment(&segment, device.attach(&segment).context("a segment cannot be attached")?);
                        segments += 1;
                    }
                    AppendRoom::Busy => break 'filling,
                }
            }
            // A segment's last group may be smaller, and be followed by the beginning of the next at once.
            let Some(group) = writer.poll_write() else { break };
            records = 0;
            started.push((group.group, Instant::now()));
            device.submit(group).map_err(|_| anyhow!("the device takes less than its depth of {depth}"))?;
        }
        if device.in_flight() == 0 {
            break;
        }
        poll(&mut [PollFd::new(&device, PollFlags::IN)], None).context("the ring cannot be waited for")?;
        while let Some(written) = device.complete() {
            written.result.context("a write failed")?;
            let at = started.iter().position(|(group, _)| *group == written.write.group).context("an unknown group")?;
            latency_us.saturating_record(started.swap_remove(at).1.elapsed().as_micros() as u64);
            bytes += written.write.len;
            writer.handle_written(written.write);
        }
        while writer.next_durable().is_some() {}
        while let Some(retired) = writer.poll_retired() {
            device.detach(retired);
        }
    }
    let mb_per_s = bytes as f64 / 1e6 / began.elapsed().as_secs_f64();
    Ok(Figures { mb_per_s, writes: latency_us.len(), latency_us })
}

const META: RecordMeta = RecordMeta {
    kind: RecordKind::Batch,
    producer: ProducerId(1),
    sequence: Sequence(1),
    arrival_ms: 0,
    batch_crc: 0,
    view_count: 1,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_and_depth_is_written() {
        let lines = lines(4 << 20, Duration::from_millis(20)).unwrap();
        assert_eq!(lines.len(), 1 + GROUP_KIB.len() * DEPTHS.len());
        for line in &lines[1..] {
            assert!(line[3].parse::<u64>().unwrap() > 0, "{line:?}");
        }
    }
}
