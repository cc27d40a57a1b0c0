//! The log: round trips, torn tails, holes, stale records, flipped bits.

use proptest::prelude::*;

use super::support::{DIRECTORY, SEGMENT_BYTES, TestLog, below, identity, random, read_log};
use crate::{Disk, GenerationScan, LogDevice, LogIdentity, MemoryDisk, StorageError, scan_generation};

const FIRST: &str = "log-000/g0000000001-s0000000000.seg";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_appended_comes_back(seed in any::<u64>()) {
        let disk = MemoryDisk::new();
        let mut random = random(seed);
        let mut log = TestLog::new(&disk, 1, seed);
        for _ in 0..40 {
            let views = if below(&mut random, 8) == 0 { 4000 } else { 1 + below(&mut random, 300) };
            log.append(views);
            match below(&mut random, 4) {
                0 => log.submit(),
                1 => log.complete_one().unwrap(),
                2 => {
                    log.submit();
                    log.complete_one().unwrap();
                }
                _ => {}
            }
        }
        log.settle().unwrap();
        prop_assert_eq!(log.taken, 40);
        let end = log.writer.appended_end();
        prop_assert_eq!(log.writer.durable_end(), end);
        let (batches, found) = read_log(&disk, 1, None).unwrap();
        prop_assert_eq!(&batches, &log.appended);
        prop_assert_eq!(found, end);
        prop_assert_eq!(read_log(&disk, 1, Some(end.position)).unwrap().0, batches);
    }

    #[test]
    fn after_power_loss_a_prefix_with_all_acknowledged_comes_back(seed in any::<u64>()) {
        let disk = MemoryDisk::new();
        let mut random = random(seed);
        let mut log = TestLog::new(&disk, 1, seed);
        for _ in 0..3 {
            log.add_segment();
        }
        for _ in 0..below(&mut random, 30) {
            let views = if below(&mut random, 6) == 0 { 3000 } else { 1 + below(&mut random, 400) };
            log.append(views);
            if below(&mut random, 2) == 0 {
                log.submit();
            }
            if below(&mut random, 3) == 0 {
                log.complete_one().unwrap();
            }
        }
        let acknowledged = log.taken;
        let crashed = disk.crash(seed ^ 1);
        let (batches, _) = read_log(&crashed, 1, None).unwrap();
        prop_assert!(batches.len() >= acknowledged, "{} of {acknowledged} came back", batches.len());
        prop_assert_eq!(&batches[..], &log.appended[..batches.len()]);
    }
}

/// Three groups, each durable before the next is submitted; returns where each starts in the segment.
fn three_groups() -> (MemoryDisk, TestLog, Vec<usize>) {
    let disk = MemoryDisk::new();
    let mut log = TestLog::new(&disk, 1, 0);
    let mut starts = Vec::new();
    for _ in 0..3 {
        let before = log.writer.appended_end().position as usize;
        starts.push(before.next_multiple_of(4096));
        log.append(5);
        log.append(40);
        log.append(1);
        log.settle().unwrap();
    }
    (disk, log, starts)
}

#[test]
fn a_bad_last_group_is_a_torn_tail_until_a_record_states_it() {
    let (disk, mut log, starts) = three_groups();
    let mut bytes = disk.contents(FIRST);
    bytes[starts[2] + 140] ^= 1;
    disk.damage(FIRST, bytes.clone());
    let (batches, _) = read_log(&disk, 1, None).unwrap();
    assert_eq!(batches, log.appended[..6]);

    bytes[starts[2] + 140] ^= 1;
    disk.damage(FIRST, bytes);
    log.state_prefix();
    let mut bytes = disk.contents(FIRST);
    bytes[starts[2] + 140] ^= 1;
    disk.damage(FIRST, bytes);
    let error = read_log(&disk, 1, None).unwrap_err();
    let StorageError::LogHole { file, offset, .. } = error else { panic!("{error}") };
    assert_eq!((file.as_str(), offset as usize / 4096), (FIRST, (starts[2] - 1) / 4096));
}

#[test]
fn a_bad_group_before_an_acknowledged_one_is_a_hole() {
    let (disk, _, starts) = three_groups();
    let mut bytes = disk.contents(FIRST);
    bytes[starts[0]..starts[1]].fill(0);
    disk.damage(FIRST, bytes);
    let error = read_log(&disk, 1, None).unwrap_err();
    assert!(matches!(error, StorageError::LogHole { offset: 0, .. }), "{error}");
    assert!(error.to_string().contains("restore the data directory from a backup"));
}

#[test]
fn a_log_that_ends_before_its_recorded_end_is_refused() {
    let (disk, log, starts) = three_groups();
    let end = log.writer.durable_end().position;
    let mut bytes = disk.contents(FIRST);
    bytes[starts[2]] ^= 1;
    disk.damage(FIRST, bytes);
    let error = read_log(&disk, 1, Some(end)).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
}

#[test]
fn records_behind_a_recorded_end_are_not_read() {
    let (disk, log, _) = three_groups();
    let (_, end) = read_log(&disk, 1, None).unwrap();
    assert_eq!(end, log.writer.durable_end());
    let length_of_first = disk.contents(FIRST)[48..52].to_vec();
    let first_end = u32::from_le_bytes(length_of_first.try_into().unwrap());
    let (batches, _) = read_log(&disk, 1, Some(u64::from(first_end))).unwrap();
    assert_eq!(batches, log.appended[..1]);
}

#[test]
fn a_zeroed_record_within_a_block_is_not_taken_for_padding() {
    let disk = MemoryDisk::new();
    let mut log = TestLog::new(&disk, 1, 0);
    log.append(1);
    let start = log.writer.appended_end().position as usize;
    log.append(1);
    let end = log.writer.appended_end().position as usize;
    log.settle().unwrap();
    log.append(1);
    log.settle().unwrap();
    let mut bytes = disk.contents(FIRST);
    bytes[start..end].fill(0);
    disk.damage(FIRST, bytes);
    let error = read_log(&disk, 1, None).unwrap_err();
    assert!(matches!(error, StorageError::LogHole { .. }), "{error}");
}

#[test]
fn stale_records_of_a_recycled_segment_are_never_read() {
    let (disk, _, starts) = three_groups();
    let recycled = "log-000/g0000000002-s0000000000.seg";
    disk.rename(FIRST, recycled).unwrap();
    assert_eq!(read_log(&disk, 2, None).unwrap().0.len(), 0);
    // New groups over the first stale one; the second stale one follows right behind.
    let mut second = TestLog::new(&disk, 2, 0);
    second.add_segment();
    second.append(5);
    second.append(40);
    second.append(1);
    second.settle().unwrap();
    assert_eq!(second.writer.appended_end().position.next_multiple_of(4096) as usize, starts[1]);
    let (batches, end) = read_log(&disk, 2, None).unwrap();
    assert_eq!(batches, second.appended);
    assert_eq!(end, second.writer.durable_end());
    // The same bytes under another directory or log number are not believed either.
    for identity in [
        LogIdentity { directory: crate::DirectoryId(DIRECTORY.0 + 1), ..identity(2) },
        LogIdentity { generation: 3, ..identity(2) },
    ] {
        let scan = GenerationScan { identity, segment_bytes: SEGMENT_BYTES, from: 0, expected_end: None };
        let end = scan_generation::<StorageError>(&disk, &scan, |_| panic!("nothing is to be believed")).unwrap();
        assert_eq!(end.records, 0);
    }
}

#[test]
fn every_flipped_bit_is_refused_or_harmless() {
    let (disk, mut log, _) = three_groups();
    log.state_prefix();
    let end = log.writer.durable_end().position as usize;
    let content_end = end - 128;
    let mut refused = 0;
    for at in 0..end {
        disk.flip_bit(FIRST, at, at as u32 % 8);
        match read_log(&disk, 1, None) {
            Ok((batches, _)) => assert_eq!(batches, log.appended, "byte {at}"),
            Err(StorageError::LogHole { .. }) => {
                refused += 1;
                assert!(at < content_end, "byte {at} is of the prefix record");
            }
            Err(error) => panic!("byte {at}: {error}"),
        }
        disk.flip_bit(FIRST, at, at as u32 % 8);
    }
    // Everything but the padding between groups and the prefix record itself is noticed.
    let records: usize = [0..3, 3..6, 6..9].into_iter().map(|range| group_bytes(&log, range)).sum();
    assert_eq!(refused, records);
}

/// Bytes of the records of one group of [`three_groups`].
fn group_bytes(log: &TestLog, range: std::ops::Range<usize>) -> usize {
    let lens = log.appended[range].iter().zip([2usize, 2, 0]);
    lens.map(|(batch, verdicts)| (128 + batch.len() + 12 * verdicts).next_multiple_of(8)).sum()
}

#[test]
fn a_missing_segment_before_another_is_refused() {
    let disk = MemoryDisk::new();
    let mut log = TestLog::new(&disk, 1, 0);
    for _ in 0..40 {
        log.append(3000);
        log.settle().unwrap();
    }
    assert!(log.segments > 2);
    disk.remove("log-000/g0000000001-s0000000001.seg").unwrap();
    let error = read_log(&disk, 1, None).unwrap_err();
    assert!(matches!(error, StorageError::Missing { .. }), "{error}");
}

#[test]
fn a_cancelled_record_leaves_nothing() {
    let disk = MemoryDisk::new();
    let mut log = TestLog::new(&disk, 1, 0);
    log.add_segment();
    log.writer.begin(100).fill(7);
    log.writer.cancel();
    assert!(log.writer.poll_write().is_none());
    log.append(2);
    log.settle().unwrap();
    assert_eq!(read_log(&disk, 1, None).unwrap().0, log.appended);
    assert_eq!(log.device.in_flight(), 0);
}

/// An engine that took such a record for the end of the log would silently lose it and all behind it.
#[test]
fn a_record_of_a_newer_engine_is_refused_by_name() {
    for (byte, found, known) in [(53, 4, 3), (54, 9, 1)] {
        let disk = MemoryDisk::new();
        let mut log = TestLog::new(&disk, 1, 0);
        log.append(3);
        log.settle().unwrap();
        let mut bytes = disk.contents(FIRST);
        bytes[byte] = found;
        let crc = crc32c::crc32c(&bytes[8..128]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        disk.damage(FIRST, bytes.clone());
        let error = read_log(&disk, 1, None).unwrap_err();
        let StorageError::NewerVersion { file, found: told, supported } = &error else { panic!("{error}") };
        assert_eq!((file.as_str(), *told, *supported), (FIRST, u32::from(found), known));
        // What an earlier use of the file left says nothing, of whatever version.
        bytes[28] ^= 1;
        let crc = crc32c::crc32c(&bytes[8..128]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        disk.damage(FIRST, bytes);
        assert_eq!(read_log(&disk, 1, None).unwrap().0.len(), 0);
    }
}

/// A batch in a record of format 1.
#[test]
fn a_batch_of_plain_columns_is_read_under_its_own_format() {
    let disk = MemoryDisk::new();
    let mut log = TestLog::new(&disk, 1, 0);
    log.append(3);
    log.settle().unwrap();
    let mut bytes = disk.contents(FIRST);
    assert_eq!((bytes[52], bytes[53]), (1, 3));
    for (format, records) in [(1, 1), (2, 0)] {
        bytes[53] = format;
        let crc = crc32c::crc32c(&bytes[8..128]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        disk.damage(FIRST, bytes.clone());
        assert_eq!(read_log(&disk, 1, None).unwrap().0.len(), records, "format {format}");
    }
}
