//! What a report says of the machine it was made on, so that figures can be compared.
//!
//! It measures nothing. Invariant: it never fails; what cannot be learned is "unknown" or 0.

use serde::Serialize;

/// The machine of a report.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor's name, family and model: the name alone is that of all that a provider has.
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
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib = value(&memory, "MemTotal").and_then(|text| {
            let number = text.split_whitespace().next()?;
            number.parse::<u64>().ok()
        });
        Self {
            cpu: processor(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
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

/// The first processor of `/proc/cpuinfo`.
fn processor(info: &str) -> String {
    let name = value(info, "model name").unwrap_or("unknown");
    match (value(info, "cpu family"), value(info, "model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name.to_owned(),
    }
}

/// The first value of `name` in lines of `name : value`.
fn value<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
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

    #[test]
    fn processors_of_one_name_are_told_apart() {
        let info = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\n";
        assert_eq!(processor(info), "AMD EPYC (family 25, model 1)");
        assert_eq!(processor("model name : one\n"), "one");
        assert_eq!(processor(""), "unknown");
    }
}
