//! The gauge: a writer and readers.
//!
//! Invariant: whoever reads a value sees what was written before it was set, and values never go back.

use super::explore;
use super::gauge::{GaugeReader, gauge};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};

#[test]
fn what_was_written_before_set_is_seen_after_read() {
    explore("what_was_written_before_set_is_seen_after_read", || {
        let (mut writer, reader) = gauge(0);
        // Relaxed on both sides: only the gauge orders them.
        let written = Arc::new(AtomicU64::new(0));
        let writing = {
            let written = Arc::clone(&written);
            loom::thread::spawn(move || {
                for value in 1..=3 {
                    written.store(value, Ordering::Relaxed);
                    writer.set(value);
                    assert_eq!(writer.value(), value);
                }
            })
        };
        let read = reader.read();
        assert!(read <= 3 && written.load(Ordering::Relaxed) >= read);
        writing.join().unwrap();
        assert_eq!(reader.read(), 3);
    });
}

#[test]
fn no_reader_sees_values_go_back() {
    explore("no_reader_sees_values_go_back", || {
        let (mut writer, reader) = gauge(5);
        let read_twice = |reader: &GaugeReader| {
            let seen = [reader.read(), reader.read()];
            assert!(seen.is_sorted() && seen[0] >= 5 && seen[1] <= 7, "{seen:?}");
        };
        let reading = {
            let reader = reader.clone();
            loom::thread::spawn(move || read_twice(&reader))
        };
        let writing = loom::thread::spawn(move || {
            writer.set(6);
            writer.set(7);
        });
        read_twice(&reader);
        reading.join().unwrap();
        writing.join().unwrap();
    });
}
