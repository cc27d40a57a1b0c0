//! Why the kernel gives no ring, told apart as far as it can be read, each with its remedy.
//!
//! Not the ring. Invariant: what is read only chooses the words; the refusal itself is the kernel's.

use std::io;

use rustix::process::{Resource, getrlimit};

/// Linux with everything that the log's ring uses.
const KERNEL_MIN: (u32, u32) = (5, 10);

/// Why the log's ring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UringError {
    /// Switched off by a setting of the kernel.
    #[error(
        "io_uring is switched off on this machine: kernel.io_uring_disabled is {level} ({source}); {} switch it on by \
         `sysctl -w kernel.io_uring_disabled=0`", whom(*level)
    )]
    SwitchedOff {
        /// The setting: 1 for all but one group, 2 for everybody.
        level: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Refused by a filter of system calls or a security module.
    #[error(
        "io_uring is forbidden to this process ({source}), {by}: in Docker start with \
         `--security-opt seccomp=PROFILE.json`, a profile that allows io_uring_setup, io_uring_enter and \
         io_uring_register; in Kubernetes name such a profile as localhostProfile; with SELinux allow the domain io_uring"
    )]
    Forbidden {
        /// Who refuses, as far as it can be read.
        by: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has none.
    #[error(
        "this kernel, Linux {release}, has no io_uring ({source}); Linux {}.{} or later is needed", KERNEL_MIN.0, KERNEL_MIN.1
    )]
    NotThere {
        /// Release of the kernel.
        release: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel is new enough, but something before it answers that there is none.
    #[error(
        "io_uring is hidden from this process ({source}) though the kernel calls itself Linux {release}: a sandbox such \
         as gVisor has none, so run the engine under runc or on a virtual machine; if a seccomp profile answers so, \
         allow io_uring_setup, io_uring_enter and io_uring_register in it"
    )]
    Hidden {
        /// Release of the kernel.
        release: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The memlock limit is too low.
    #[error(
        "a ring of {entries} entries exceeds the memlock limit: RLIMIT_MEMLOCK is {limit_bytes} bytes ({source}); raise \
         it by LimitMEMLOCK=64M in the systemd unit, `ulimit -l 65536`, or `docker run --ulimit memlock=67108864`"
    )]
    Memlock {
        /// Entries of the ring.
        entries: u32,
        /// The limit of this process.
        limit_bytes: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("io_uring with {entries} entries cannot be set up: {source}; see io_uring_setup(2) for this error")]
    Setup {
        /// Entries of the ring.
        entries: u32,
        /// What the kernel said.
        source: io::Error,
    },
}

/// For whom a setting of the kernel switches io_uring off.
fn whom(level: u32) -> &'static str {
    match level {
        1 => {
            "that is for all processes without CAP_SYS_ADMIN that are not in the group kernel.io_uring_group: put the \
             engine's user into it, or"
        }
        _ => "that is for everybody:",
    }
}

/// What can be read about a refusal.
pub(crate) struct Surroundings {
    /// `kernel.io_uring_disabled`, from Linux 6.6 on.
    disabled: Option<u32>,
    /// Whether a seccomp filter is on this process, if it can be read.
    is_filtered: Option<bool>,
    release: String,
    memlock_bytes: u64,
}

impl Surroundings {
    pub(crate) fn read() -> Self {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        let status = std::fs::read_to_string("/proc/self/status").ok();
        let seccomp = status.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("Seccomp:")));
        Self {
            disabled: disabled.and_then(|text| text.trim().parse().ok()),
            is_filtered: seccomp.map(|mode| mode.trim() == "2"),
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            memlock_bytes: getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX),
        }
    }
}

/// Tells what stands behind the kernel's refusal to set up a ring.
pub(crate) fn explain(entries: u32, source: io::Error, around: Surroundings) -> UringError {
    match (source.raw_os_error(), around.disabled) {
        (Some(libc::EPERM), Some(level @ 1..)) => UringError::SwitchedOff { level, source },
        (Some(libc::EPERM | libc::EACCES), _) => {
            let by = match around.is_filtered {
                Some(true) => "by the seccomp filter that it runs under",
                Some(false) => "by a security module, since no seccomp filter is on it",
                None => "by a seccomp filter or a security module",
            };
            UringError::Forbidden { by, source }
        }
        (Some(libc::ENOSYS), _) if is_older(&around.release) => {
            UringError::NotThere { release: around.release, source }
        }
        (Some(libc::ENOSYS), _) => UringError::Hidden { release: around.release, source },
        (Some(libc::ENOMEM), _) => UringError::Memlock { entries, limit_bytes: around.memlock_bytes, source },
        _ => UringError::Setup { entries, source },
    }
}

/// Whether a kernel of this release is too old; one that cannot be read is not.
fn is_older(release: &str) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < KERNEL_MIN,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(code: i32, disabled: Option<u32>, is_filtered: Option<bool>, release: &str) -> String {
        let around = Surroundings { disabled, is_filtered, release: release.to_owned(), memlock_bytes: 65536 };
        explain(8, io::Error::from_raw_os_error(code), around).to_string()
    }

    #[test]
    fn each_refusal_has_its_own_remedy() {
        let one = text(libc::EPERM, Some(1), Some(false), "6.6.0");
        assert!(one.contains("kernel.io_uring_disabled is 1") && one.contains("kernel.io_uring_group"), "{one}");
        let two = text(libc::EPERM, Some(2), Some(true), "6.6.0");
        assert!(two.contains("is 2") && two.contains("sysctl -w kernel.io_uring_disabled=0"), "{two}");
        let filtered = text(libc::EPERM, Some(0), Some(true), "6.6.0");
        assert!(
            filtered.contains("by the seccomp filter") && filtered.contains("--security-opt seccomp="),
            "{filtered}"
        );
        let module = text(libc::EACCES, None, Some(false), "5.15.0");
        assert!(module.contains("by a security module"), "{module}");
        let old = text(libc::ENOSYS, None, Some(false), "4.19.0-26-amd64");
        assert!(old.contains("Linux 4.19.0-26-amd64") && old.contains("Linux 5.10 or later"), "{old}");
        let hidden = text(libc::ENOSYS, None, Some(true), "6.1.0");
        assert!(hidden.contains("gVisor") && hidden.contains("io_uring_enter"), "{hidden}");
        let locked = text(libc::ENOMEM, None, Some(false), "5.10.0");
        assert!(locked.contains("65536 bytes") && locked.contains("LimitMEMLOCK=64M"), "{locked}");
        assert!(text(libc::EMFILE, None, None, "6.1.0").contains("io_uring_setup(2)"));
    }

    #[test]
    fn what_is_read_here_is_sensible() {
        let around = Surroundings::read();
        assert!(around.is_filtered.is_some() && !around.release.is_empty());
        assert!(is_older("5.9.1") && is_older("4.4") && !is_older("5.10.0") && !is_older("6.0-rc1") && !is_older("?"));
    }
}
