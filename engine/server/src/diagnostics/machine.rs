//! What is read of the machine at a start.
//!
//! Not what to think of it. Invariant: what cannot be read is unknown, and nothing is said of it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::path::Path;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// What the kernel gave to the UDP sockets, the least of all cores.
    pub sockets: Sockets,
    /// Descriptors that this process may have.
    pub open_files_max: u64,
    /// Longest file that it may write; none without a limit.
    pub file_bytes_max: Option<u64>,
    /// Physical memory.
    pub memory_bytes: Option<u64>,
    /// Memory that the control groups allow, the least of all levels; none without a limit.
    pub cgroup_memory_bytes: Option<u64>,
    /// `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// Free bytes on the data directory's file system.
    pub disk_free_bytes: u64,
    /// Bytes of the log that are there already.
    pub log_bytes: u64,
    /// Whether the log is written around the page cache.
    pub direct_io: bool,
    /// What the kernel reads the time from.
    pub clock_source: Option<String>,
    /// What it could read it from.
    pub clock_sources: Vec<String>,
}

/// What the kernel gave to a UDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sockets {
    /// Receive buffer, as it was asked for.
    pub receive_buffer_bytes: u64,
    /// Send buffer, as it was asked for.
    pub send_buffer_bytes: u64,
    /// Packets in one send; 1 without the offload.
    pub gso_segments: usize,
    /// Packets in one receive; 1 without the offload.
    pub gro_segments: usize,
}

impl Sockets {
    /// The least of both.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self {
            receive_buffer_bytes: self.receive_buffer_bytes.min(other.receive_buffer_bytes),
            send_buffer_bytes: self.send_buffer_bytes.min(other.send_buffer_bytes),
            gso_segments: self.gso_segments.min(other.gso_segments),
            gro_segments: self.gro_segments.min(other.gro_segments),
        }
    }
}

impl Machine {
    /// Reads what is not known from opening sockets and files.
    pub fn read(data_dir: &Path, sockets: Sockets, direct_io: bool, disk_free_bytes: u64) -> Self {
        let clock = "/sys/devices/system/clocksource/clocksource0";
        Self {
            sockets,
            open_files_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            file_bytes_max: getrlimit(Resource::Fsize).current,
            memory_bytes: line("/proc/meminfo").and_then(|text| mem_total(&text)),
            cgroup_memory_bytes: cgroup_memory(),
            huge_pages: line("/sys/kernel/mm/transparent_hugepage/enabled").and_then(|text| chosen(&text)),
            disk_free_bytes,
            log_bytes: log_bytes(data_dir),
            direct_io,
            clock_source: line(&format!("{clock}/current_clocksource")),
            clock_sources: line(&format!("{clock}/available_clocksource"))
                .map(|text| text.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
        }
    }
}

/// Raises the soft limit on open files to the hard one, and returns what then holds.
pub fn raise_open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // A system that refuses leaves what was there, and that is what is returned.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn mem_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The word in brackets of a list such as `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let start = text.find('[')? + 1;
    Some(text[start..].split(']').next()?.to_owned())
}

/// The least limit of the control groups that this process is in, of version 1 and 2, as far as they can be seen.
fn cgroup_memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().flat_map(limit_files).filter_map(|path| cgroup_limit(&fs::read_to_string(path).ok()?)).min()
}

/// Where the limits of a line of /proc/self/cgroup stand: the group's own, and those of the groups around it.
fn limit_files(line: &str) -> Vec<String> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { return Vec::new() };
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        named if named.split(',').any(|one| one == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    // Within a container the root is the container's own group, whatever the name is outside.
    Path::new(group).ancestors().map(|level| format!("{root}{}/{file}", level.display()).replace("//", "/")).collect()
}

/// A limit in bytes; `max`, and what version 1 says for none, is none.
fn cgroup_limit(text: &str) -> Option<u64> {
    text.trim().parse::<u64>().ok().filter(|limit| *limit < 1 << 60)
}

/// Lengths of all segments that are there.
fn log_bytes(data_dir: &Path) -> u64 {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let logs = entries(data_dir).filter(|entry| entry.file_name().to_string_lossy().starts_with("log-"));
    let files = logs.flat_map(|log| entries(&log.path()).collect::<Vec<_>>());
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_understood() {
        assert_eq!(mem_total("MemTotal:       24576 kB\nMemFree: 1 kB\n"), Some(24576 * 1024));
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("nothing"), None);
        assert_eq!(cgroup_limit("max\n"), None);
        assert_eq!(cgroup_limit("9223372036854771712\n"), None);
        assert_eq!(cgroup_limit("1073741824\n"), Some(1 << 30));
        let two = ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"];
        assert_eq!(limit_files("0::/a/b"), two);
        assert_eq!(limit_files("4:cpu,memory:/"), ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
        assert!(limit_files("1:cpu:/").is_empty() && limit_files("").is_empty());
    }

    #[test]
    fn this_machine_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("log-000")).unwrap();
        fs::write(directory.path().join("log-000/segment"), [0; 100]).unwrap();
        let sockets = Sockets { receive_buffer_bytes: 1, send_buffer_bytes: 2, gso_segments: 3, gro_segments: 4 };
        let machine = Machine::read(directory.path(), sockets, true, 5);
        assert_eq!((machine.log_bytes, machine.disk_free_bytes, machine.sockets), (100, 5, sockets));
        assert!(machine.memory_bytes.unwrap() > 1 << 20 && machine.open_files_max > 0);
        let limit = raise_open_files();
        assert_eq!(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX), limit);
    }
}
