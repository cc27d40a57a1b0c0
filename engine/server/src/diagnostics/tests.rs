//! What is told of which machine.

use super::*;

const MIB: u64 = 1 << 20;

fn healthy() -> Machine {
    Machine {
        sockets: Sockets {
            receive_buffer_bytes: 8 * MIB,
            send_buffer_bytes: 8 * MIB,
            gso_segments: 64,
            gro_segments: 64,
        },
        open_files_max: 20_000,
        file_bytes_max: None,
        memory_bytes: Some(16 << 30),
        cgroup_memory_bytes: None,
        huge_pages: Some("madvise".to_owned()),
        disk_free_bytes: 100 << 30,
        log_bytes: 0,
        direct_io: true,
        clock_source: Some("tsc".to_owned()),
        clock_sources: vec!["tsc".to_owned(), "hpet".to_owned()],
    }
}

fn needs() -> Needs {
    Needs {
        cores: 2,
        memory_bytes: 4 << 30,
        socket_buffer_bytes: 8 * MIB,
        segment_bytes: 64 * MIB,
        log_retention_bytes: 8 << 30,
        cut_reserve_bytes: 256 * MIB,
    }
}

/// The one thing that is told of a machine.
fn told(change: impl FnOnce(&mut Machine)) -> String {
    let mut machine = healthy();
    change(&mut machine);
    let found = findings(&machine, &needs());
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].to_string()
}

#[test]
fn nothing_is_told_of_a_healthy_machine() {
    assert_eq!(findings(&healthy(), &needs()), []);
    let mut unknown = healthy();
    (unknown.memory_bytes, unknown.huge_pages, unknown.clock_source) = (None, None, None);
    assert_eq!(findings(&unknown, &needs()), [], "nothing is said of what cannot be read");
}

#[test]
fn each_weakness_is_told_with_its_value_and_remedy() {
    let receive = told(|machine| machine.sockets.receive_buffer_bytes = 212_992);
    assert!(receive.contains("212992") && receive.contains("sysctl -w net.core.rmem_max=8388608"), "{receive}");
    let send = told(|machine| machine.sockets.send_buffer_bytes = 212_992);
    assert!(send.contains("212992") && send.contains("sysctl -w net.core.wmem_max=8388608"), "{send}");
    let gso = told(|machine| machine.sockets.gso_segments = 1);
    assert!(gso.contains("no GSO") && gso.contains("UDP_SEGMENT"), "{gso}");
    let gro = told(|machine| machine.sockets.gro_segments = 1);
    assert!(gro.contains("no GRO") && gro.contains("UDP_GRO"), "{gro}");
    let files = told(|machine| machine.open_files_max = 256);
    assert!(files.contains("256") && files.contains("LimitNOFILE") && files.contains("176 connections"), "{files}");
    let length = told(|machine| machine.file_bytes_max = Some(1000));
    assert!(length.contains("1000 bytes") && length.contains("ulimit -f unlimited"), "{length}");
    let group = told(|machine| machine.cgroup_memory_bytes = Some(1 << 30));
    assert!(group.contains("1073741824") && group.contains("4294967296") && group.contains("kills"), "{group}");
    let small = told(|machine| machine.memory_bytes = Some(1 << 30));
    assert!(small.contains("the machine has 1073741824") && small.contains("--memory"), "{small}");
    let pages = told(|machine| machine.huge_pages = Some("never".to_owned()));
    assert!(pages.contains("never") && pages.contains("echo madvise"), "{pages}");
    let cached = told(|machine| machine.direct_io = false);
    assert!(cached.contains("direct I/O") && cached.contains("ext4 or xfs"), "{cached}");
    let slow = told(|machine| machine.clock_source = Some("hpet".to_owned()));
    assert!(slow.contains("hpet") && slow.contains("echo tsc >"), "{slow}");
    let slow = told(|machine| {
        machine.clock_source = Some("acpi_pm".to_owned());
        machine.clock_sources = vec!["acpi_pm".to_owned()];
    });
    assert!(slow.contains("tsc=reliable"), "{slow}");
}

#[test]
fn the_log_that_is_there_counts_as_room_for_it() {
    let tight = told(|machine| machine.disk_free_bytes = 8 << 30);
    assert!(tight.contains("--log-retention=8589934592B") && tight.contains("GiB at most"), "{tight}");
    let tiny = told(|machine| machine.disk_free_bytes = 100 * MIB);
    assert!(tiny.contains("use a disk with"), "{tiny}");
    let mut used = healthy();
    (used.disk_free_bytes, used.log_bytes) = (2 << 30, 8 << 30);
    assert_eq!(findings(&used, &needs()), []);
}

#[test]
fn http_gets_the_descriptors_that_the_engine_does_not_need() {
    assert_eq!(http_connections(20_000, 2).unwrap(), 1024);
    assert_eq!(http_connections(100, 1).unwrap(), 44);
    assert_eq!(http_connections(57, 1).unwrap(), 1);
    let error = http_connections(56, 1).unwrap_err().to_string();
    assert!(error.contains("is 56") && error.contains("at least 57") && error.contains("ulimit -n"), "{error}");
}

#[test]
fn a_clock_that_was_never_set_is_refused() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    check_wall_clock(at(CLOCK_FROM_S), false).unwrap();
    let error = check_wall_clock(at(86_400), false).unwrap_err().to_string();
    assert!(error.contains("1970-01-02T00:00:00Z") && error.contains("--accept-clock"), "{error}");
    check_wall_clock(at(86_400), true).unwrap();
    assert!(check_wall_clock(SystemTime::UNIX_EPOCH - Duration::from_secs(9), false).is_err());
}
