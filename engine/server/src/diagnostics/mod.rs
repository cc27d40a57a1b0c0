//! What usually bites an operator, told once at a start: what was found, what it causes, and what to do.
//!
//! Not what keeps an engine from starting, which is an error where it is met. Invariant: what is told is a pure
//! function of what was read of the machine and of what this configuration needs; on a healthy machine it is nothing.

mod machine;

pub use machine::{Machine, Sockets, raise_open_files};

use crate::runtime::Runtime;
use anyhow::{Result, bail};
use std::fmt;
use std::time::{Duration, SystemTime};

/// Descriptors that an engine has open besides those of its cores and of HTTP connections.
const FILES_BASE: u64 = 32;

/// Descriptors of a core: socket, rings, wake-up, segments; with room to spare.
const FILES_PER_CORE: u64 = 24;

/// HTTP connections that the sidecar in the engine takes where descriptors allow it.
const HTTP_CONNECTIONS_MAX: u64 = 1024;

/// Clock sources that need a system call, or worse a slow device, for each look at the clock.
const SLOW_CLOCK_SOURCES: [&str; 5] = ["hpet", "acpi_pm", "refined-jiffies", "jiffies", "pit"];

/// 2025-01-01T00:00:00Z, in seconds since 1970: before this there was no engine.
const CLOCK_FROM_S: u64 = 1_735_689_600;

/// What this configuration needs.
#[derive(Debug, Clone)]
pub struct Needs {
    /// Cores.
    pub cores: u64,
    /// `--memory`.
    pub memory_bytes: u64,
    /// Buffer asked for, for each direction of a UDP socket.
    pub socket_buffer_bytes: u64,
    /// Length of a log segment.
    pub segment_bytes: u64,
    /// `--log-retention`.
    pub log_retention_bytes: u64,
    /// What segments leave free for cut files.
    pub cut_reserve_bytes: u64,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was found, with its value.
    pub what: String,
    /// What it causes.
    pub effect: &'static str,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}; {}", self.what, self.effect, self.remedy)
    }
}

/// Descriptors that the engine needs for itself.
pub fn files_needed(cores: u64) -> u64 {
    FILES_BASE + FILES_PER_CORE * cores
}

/// HTTP connections that leave the engine the descriptors that it needs itself.
///
/// # Errors
/// When not one is left.
pub fn http_connections(open_files_max: u64, cores: u64) -> Result<usize> {
    let needed = files_needed(cores) + 1;
    if open_files_max < needed {
        bail!(
            "the limit on open files is {open_files_max}, and at least {needed} are needed; raise it by \
             LimitNOFILE=65536 in the systemd unit, or `ulimit -n 65536`"
        );
    }
    Ok((open_files_max - files_needed(cores)).min(HTTP_CONNECTIONS_MAX) as usize)
}

/// Refuses what only a clock that was never set says: all views would be refused as of the future, and the data
/// directory would begin in a time that no later start believes.
///
/// # Errors
/// When the wall clock is before 2025, unless that is accepted.
pub fn check_wall_clock(now: SystemTime, accept: bool) -> Result<()> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    if since.as_secs() >= CLOCK_FROM_S || accept {
        return Ok(());
    }
    let time = jiff::Timestamp::from_second(since.as_secs() as i64).unwrap_or_default();
    bail!(
        "the wall clock says {time}, and this engine was made after 2025-01-01: the clock was never set, and the views of \
         now would all be refused as of the future; set it by `timedatectl set-ntp true` or `date -s`, or start with \
         --accept-clock if you mean it"
    )
}

/// Tells what there is to tell, and one line of facts.
pub fn tell(machine: &Machine, needs: &Needs, runtime: Runtime) {
    for finding in findings(machine, needs) {
        tracing::warn!("{finding}");
    }
    tracing::info!(
        io_uring = "ok",
        ?runtime,
        direct_io = machine.direct_io,
        gso_segments = machine.sockets.gso_segments,
        gro_segments = machine.sockets.gro_segments,
        udp_receive_buffer_bytes = machine.sockets.receive_buffer_bytes,
        udp_send_buffer_bytes = machine.sockets.send_buffer_bytes,
        clock_source = machine.clock_source.as_deref().unwrap_or("unknown"),
        open_files_max = machine.open_files_max,
        "machine"
    );
}

/// What is worth a warning.
pub fn findings(machine: &Machine, needs: &Needs) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(sockets(&machine.sockets, needs.socket_buffer_bytes));
    found.extend(limits(machine, needs));
    found.extend(memory(machine, needs));
    found.extend(disk(machine, needs));
    found.extend(clock(machine));
    found
}

fn sockets(sockets: &Sockets, wanted: u64) -> Vec<Finding> {
    let mut found = Vec::new();
    let buffers = [
        ("receive", "rmem_max", sockets.receive_buffer_bytes, "bursts of packets are dropped and must be sent again"),
        ("send", "wmem_max", sockets.send_buffer_bytes, "answers to many clients wait for one another"),
    ];
    for (direction, setting, granted, effect) in buffers {
        if granted < wanted {
            found.push(Finding {
                what: format!("the kernel grants UDP sockets a {direction} buffer of {granted} bytes, not {wanted}"),
                effect,
                remedy: format!("`sysctl -w net.core.{setting}={wanted}`, then start again"),
            });
        }
    }
    let offloads = [
        ("GSO", "UDP_SEGMENT", "4.18", sockets.gso_segments, "each packet that is sent costs a system call"),
        ("GRO", "UDP_GRO", "5.0", sockets.gro_segments, "each packet that is received is handled by itself"),
    ];
    for (name, option, release, segments, effect) in offloads {
        if segments <= 1 {
            found.push(Finding {
                what: format!("UDP sockets have no {name}"),
                effect,
                remedy: format!("use Linux {release} or later, or let the sandbox allow the socket option {option}"),
            });
        }
    }
    found
}

fn limits(machine: &Machine, needs: &Needs) -> Vec<Finding> {
    let mut found = Vec::new();
    let files = files_needed(needs.cores) + HTTP_CONNECTIONS_MAX;
    if machine.open_files_max < files {
        let left = machine.open_files_max.saturating_sub(files_needed(needs.cores));
        found.push(Finding {
            what: format!("the limit on open files is {}, and {files} may be needed", machine.open_files_max),
            effect: "HTTP serves fewer connections at a time, and others wait",
            remedy: format!(
                "LimitNOFILE=65536 in the systemd unit, or `ulimit -n 65536`; until then there are {left} connections"
            ),
        });
    }
    if let Some(limit) = machine.file_bytes_max {
        found.push(Finding {
            what: format!("files may be {limit} bytes long at most (RLIMIT_FSIZE)"),
            effect: "a cut file or a log segment beyond that ends the engine",
            remedy: "LimitFSIZE=infinity in the systemd unit, or `ulimit -f unlimited`".to_owned(),
        });
    }
    found
}

fn memory(machine: &Machine, needs: &Needs) -> Vec<Finding> {
    let mut found = Vec::new();
    let memory = needs.memory_bytes;
    if let Some(limit) = machine.cgroup_memory_bytes.filter(|limit| *limit < memory) {
        found.push(Finding {
            what: format!("the control group allows {limit} bytes of memory, --memory is {memory}"),
            effect: "the kernel kills the engine when the tables have grown to the limit",
            remedy: format!("lower --memory below {limit}B, or raise MemoryMax= or `docker run --memory`"),
        });
    }
    if let Some(total) = machine.memory_bytes.filter(|total| *total < memory) {
        found.push(Finding {
            what: format!("the machine has {total} bytes of memory, --memory is {memory}"),
            effect: "the kernel kills the engine when the tables have grown to that",
            remedy: format!("lower --memory below {total}B, or use a larger machine"),
        });
    }
    if machine.huge_pages.as_deref() == Some("never") {
        found.push(Finding {
            what: "transparent huge pages are set to never".to_owned(),
            effect: "counting is slower, since each view looks up more pages",
            remedy: "`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`".to_owned(),
        });
    }
    found
}

fn disk(machine: &Machine, needs: &Needs) -> Vec<Finding> {
    let mut found = Vec::new();
    if !machine.direct_io {
        found.push(Finding {
            what: "the data directory's file system refuses direct I/O".to_owned(),
            effect: "the log goes through the page cache and is slower",
            remedy: "put --data-dir on ext4 or xfs".to_owned(),
        });
    }
    let kept = 3 * needs.cores * needs.segment_bytes + needs.cut_reserve_bytes;
    let there = machine.disk_free_bytes.saturating_add(machine.log_bytes);
    let wanted = needs.log_retention_bytes.saturating_add(kept);
    if there < wanted {
        let fits = there.saturating_sub(kept);
        found.push(Finding {
            what: format!(
                "the disk has {} bytes free, and {} are in the log; --log-retention={}B and what is prepared ahead take \
                 {wanted}",
                machine.disk_free_bytes, machine.log_bytes, needs.log_retention_bytes
            ),
            effect: "the disk will be full before old log is recycled, and batches will be refused as disk_full",
            remedy: match fits >= needs.segment_bytes.max(2 << 30) {
                true => format!("start with --log-retention={}GiB at most, or use a larger disk", (fits / 2) >> 30),
                false => format!("use a disk with {wanted} bytes free"),
            },
        });
    }
    found
}

fn clock(machine: &Machine) -> Option<Finding> {
    let source = machine.clock_source.as_deref().filter(|source| SLOW_CLOCK_SOURCES.contains(source))?;
    let better = machine.clock_sources.iter().find(|one| !SLOW_CLOCK_SOURCES.contains(&one.as_str()));
    Some(Finding {
        what: format!("the clock source is {source}"),
        effect: "each look at the clock is a slow system call, and cores look often",
        remedy: match better {
            Some(better) => format!(
                "`echo {better} > /sys/devices/system/clocksource/clocksource0/current_clocksource`; if the kernel has \
                 marked it unstable, see its log"
            ),
            None => {
                "boot with `tsc=reliable` where the CPU has an invariant TSC, or give the virtual machine kvm-clock"
                    .to_owned()
            }
        },
    })
}

#[cfg(test)]
mod tests;
