//! Frames, hellos and questions that are not what the protocol says.

use super::Victim;
use super::forge::{batch, frame, header, hello, hello_changed, lookup, subscribe};
use highwater_proto::CloseReason::{InvalidVideoId, LimitExceeded, Malformed, UnexpectedFrame, VersionUnsupported};
use highwater_proto::{FrameKind, VIDEO_ID_BYTES_MAX};

#[test]
fn frames_that_are_none_are_refused() {
    let mut victim = Victim::new();
    let garbage = [0xFF; 64];
    victim.first("64 bytes 0xff for a frame", &garbage, Malformed, &["frame kind 0xff", "highwater/1"]);
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    victim.first("an HTTP request for a frame", request, Malformed, &["frame kind 0x2f", "PROTOCOL.md"]);
    victim.first("a frame of the unknown kind 7", &header(7, 8), Malformed, &["frame kind 0x07", "section 3"]);
    for kind in FrameKind::ALL {
        let max = kind.payload_bytes_max();
        let deed = format!("the header of a frame {kind} of {} bytes", max + 1);
        let stated = format!("{kind} payload of {} bytes", max + 1);
        let limit = format!("limit of {max}");
        let bytes = header(kind.code(), max as u32 + 1);
        victim.first(&deed, &bytes, LimitExceeded, &[&stated, &limit, "send less"]);
    }
    let mut bytes = header(FrameKind::Hello.code(), 24);
    bytes[6] = 1;
    victim.first(
        "reserved bytes of a frame header not 0",
        &bytes,
        Malformed,
        &["frame header", "0x100", "write zeros"],
    );
    for kind in [FrameKind::Welcome, FrameKind::Redirect, FrameKind::Ack, FrameKind::BatchRefused] {
        let deed = format!("{kind}, which only an engine sends");
        victim.first(&deed, &header(kind.code(), 0), UnexpectedFrame, &[kind.as_str(), "begin with HELLO"]);
    }
    for kind in [FrameKind::LookupAnswer, FrameKind::Snapshot, FrameKind::HistoryAnswer, FrameKind::PeriodsAnswer] {
        let deed = format!("{kind}, which only an engine sends");
        victim.first(&deed, &header(kind.code(), 0), UnexpectedFrame, &[kind.as_str(), "begin with HELLO"]);
    }
    victim.first_and_last(
        "3 bytes of a header, then the end",
        &[24, 0, 0],
        Malformed,
        &["3 of 8 bytes", "whole frames"],
    );
    victim.recover(&[]);
}

#[test]
fn hellos_that_are_none_are_refused() {
    let mut victim = Victim::new();
    for version in [0_u16, 2, 99] {
        let bytes = hello_changed(victim.id(), 0, &version.to_le_bytes());
        let (deed, found) = (format!("a HELLO of version {version}"), format!("version {version}"));
        victim.first(&deed, &bytes, VersionUnsupported, &[&found, "reads version 1", "bring both"]);
    }
    for mode in [0, 3] {
        let bytes = hello_changed(victim.id(), 2, &[mode]);
        let (deed, found) = (format!("a HELLO of mode {mode}"), format!("hello mode {mode}"));
        victim.first(&deed, &bytes, Malformed, &[&found, "PROTOCOL.md"]);
    }
    let bytes = hello_changed(victim.id(), 3, &[9]);
    victim.first("the reserved byte of a HELLO not 0", &bytes, Malformed, &["HELLO", "0x9", "write zeros"]);
    let bytes = hello_changed(victim.id(), 4, &[5]);
    let words = ["HELLO ends too soon", "5 bytes needed, 0 left", "check the lengths"];
    victim.first("a HELLO whose token is stated and not there", &bytes, Malformed, &words);
    let bytes = hello_changed(victim.id(), 4, &1025_u32.to_le_bytes());
    let words = ["token length is 1025", "0 to 1024", "PROTOCOL.md"];
    victim.first("a HELLO that states a token of 1025 bytes", &bytes, LimitExceeded, &words);
    let bytes = frame(FrameKind::Hello.code(), &hello(victim.id())[8..20]);
    victim.first("a HELLO of 12 bytes", &bytes, Malformed, &["HELLO ends too soon", "16 bytes needed, 4 left"]);
    let longer = [&hello(victim.id())[8..], &[0; 6]].concat();
    let bytes = frame(FrameKind::Hello.code(), &longer);
    victim.first("a HELLO with 6 bytes behind its token", &bytes, Malformed, &["HELLO has 6 bytes too many"]);
    victim.recover(&[]);
}

#[test]
fn questions_that_are_none_are_refused() {
    let mut victim = Victim::new();
    victim.first(
        "a LOOKUP of an empty id",
        &lookup(0, b""),
        InvalidVideoId,
        &["empty video_id", "1 to 255", "name the"],
    );
    victim.first("a LOOKUP not in UTF-8", &lookup(3, b"a\xffb"), InvalidVideoId, &["video_id", "encode it as UTF-8"]);
    // The length has one byte: 256 cannot be stated, and 255 with one more byte is over the frame's limit.
    let bytes = lookup(255, &[b'v'; VIDEO_ID_BYTES_MAX + 1]);
    victim.first("a LOOKUP of an id of 256 bytes", &bytes, LimitExceeded, &["LOOKUP payload of 260 bytes", "259"]);
    victim.first("a LOOKUP shorter than its id", &lookup(9, b"short"), Malformed, &["9 bytes needed, 5 left"]);
    victim.first("a LOOKUP longer than its id", &lookup(1, b"long"), Malformed, &["3 bytes too many"]);
    let short = frame(FrameKind::Subscribe.code(), &[0; 4]);
    victim.first("a SUBSCRIBE of 4 bytes", &short, Malformed, &["SUBSCRIBE", "8 bytes needed, 4 left"]);
    let history = |period: u8| frame(FrameKind::History.code(), &[[period, 0, 0, 0, 0, 0, 0, 0], [0; 8]].concat());
    let periods = |limit: u16| {
        let [low, high] = limit.to_le_bytes();
        frame(FrameKind::Periods.code(), &[[1, 0, low, high, 0, 0, 0, 0], [0xff; 8]].concat())
    };
    victim.first("a HISTORY of all-time", &history(3), Malformed, &["period of history 3", "PROTOCOL.md"]);
    let short = frame(FrameKind::History.code(), &[1; 4]);
    victim.first("a HISTORY of 4 bytes", &short, Malformed, &["HISTORY"]);
    victim.first("a PERIODS of none", &periods(0), Malformed, &["periods limit is 0", "1 to 1000"]);
    victim.first("a PERIODS of 1001", &periods(1001), LimitExceeded, &["periods limit is 1001", "1 to 1000"]);
    let twice = [history(1), periods(1)].concat();
    victim.first(
        "a PERIODS behind a HISTORY",
        &twice,
        UnexpectedFrame,
        &["PERIODS came behind a HISTORY", "another stream"],
    );
    let twice = [lookup(1, b"v"), lookup(1, b"w")].concat();
    victim.first("a second LOOKUP on a stream", &twice, UnexpectedFrame, &["behind a LOOKUP", "open another stream"]);
    let twice = [subscribe(), subscribe()].concat();
    victim.first("a second SUBSCRIBE on a stream", &twice, UnexpectedFrame, &["behind a SUBSCRIBE", "another stream"]);
    let mixed = [subscribe(), hello(victim.id())].concat();
    victim.first("a HELLO behind a SUBSCRIBE", &mixed, UnexpectedFrame, &["HELLO came behind a SUBSCRIBE"]);
    let alone = batch(victim.id(), 1);
    victim.first("a BATCH before any HELLO", &alone, UnexpectedFrame, &["BATCH", "cannot be the first frame", "HELLO"]);
    victim.recover(&[]);
}
