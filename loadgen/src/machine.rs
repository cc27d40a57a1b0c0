//! What a report says of the machine it was made on, so that figures can be compared.
//!
//! It measures nothing. Invariant: it never fails; what cannot be learned is "unknown" or 0.

use serde::Serialize;

/// The machine of a report.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor's model name.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Main memory in bytes.
    pub memory_bytes: u64,
}

impl Machine {
    /// This machine, from `/proc`.
    #[must_use]
    pub fn this() -> Self {
        let memory_kib = proc_value("/proc/meminfo", "MemTotal").and_then(|text| {
            let number = text.split_whitespace().next()?;
            number.parse::<u64>().ok()
        });
        Self {
            cpu: proc_value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory_kib.unwrap_or(0) * 1024,
        }
    }
}

/// The running kernel's release.
#[must_use]
pub fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(|_| "unknown".into(), |release| release.trim().to_owned())
}

/// The commit this program was built from.
#[must_use]
pub fn commit() -> &'static str {
    env!("HIGHWATER_COMMIT")
}

/// The first value of `name` in a file of `name : value` lines.
fn proc_value(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::this();
        assert!(machine.cores >= 1);
        assert!(!machine.cpu.is_empty() && !kernel().is_empty() && !commit().is_empty());
    }
}
