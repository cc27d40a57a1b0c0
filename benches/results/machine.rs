//! The part `machine`: what everything else was measured on, and what runs where.
//!
//! Invariant: what cannot be learned is said to be unknown; nothing here fails.

use crate::report::Report;
use crate::{Bench, stamp};
use anyhow::Result;
use highwater_loadgen::machine::{Machine, kernel};
use highwater_loadgen::table::{aligned, cells};
use std::path::Path;
use std::process::Command;

const UNKNOWN: &str = "unknown";

pub(crate) fn measure(bench: &Bench) -> Result<Report> {
    let machine = Machine::this();
    let (engine_cpu, load_cpu) = (bench.engine.engine_cpu, bench.engine.load_cpu);
    let temporary = std::env::temp_dir();
    let rows = [
        ("CPU", machine.cpu),
        ("CPUs that may be used", machine.cores.to_string()),
        ("caches of the engine's CPU", caches(engine_cpu)),
        ("memory", format!("{:.1} GiB", machine.memory_bytes as f64 / f64::from(1 << 30))),
        ("kernel", format!("Linux {}", kernel())),
        ("file system of the data directory", file_system(&temporary)),
        ("net.core.rmem_max", read("/proc/sys/net/core/rmem_max")),
        ("transparent huge pages", read("/sys/kernel/mm/transparent_hugepage/enabled")),
        ("rustc", said(Command::new("rustc").arg("--version"))),
        ("commit", stamp::commit()),
        ("on the engine's CPU", format!("CPU {engine_cpu}: all threads of an engine, its helpers and HTTP included")),
        ("on the load's CPU", format!("CPU {load_cpu}: `loadgen`, `oha` and `perf`")),
    ];
    let mut lines = vec![cells(&["what", "here"])];
    lines.extend(rows.map(|(what, here)| cells(&[what, &here])));
    let mut report = Report::default();
    if cfg!(debug_assertions) {
        report.say("The program that made this page was built without `--release`: its figures say little.");
    }
    report.say(aligned(&lines, 2));
    Ok(report)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| UNKNOWN.to_owned(), |text| text.trim().to_owned())
}

fn said(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    output.map_or_else(|| UNKNOWN.to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Level, kind and size of each cache, as the kernel tells them.
fn caches(cpu: usize) -> String {
    let folder = format!("/sys/devices/system/cpu/cpu{cpu}/cache");
    let cache = |index: u32| {
        let value = |name: &str| std::fs::read_to_string(format!("{folder}/index{index}/{name}")).ok();
        let (level, kind, size) = (value("level")?, value("type")?, value("size")?);
        let kind = match kind.trim() {
            "Data" => "d",
            "Instruction" => "i",
            _ => "",
        };
        Some(format!("L{}{kind} {}", level.trim(), size.trim()))
    };
    let caches: Vec<String> = (0..8).map_while(cache).collect();
    if caches.is_empty() { UNKNOWN.to_owned() } else { caches.join(", ") }
}

fn file_system(folder: &Path) -> String {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    mounted_at(&table, &folder).unwrap_or_else(|| UNKNOWN.to_owned())
}

/// Kind, device and options of the mount that a folder lies on: of those above it the deepest, and of these the last.
/// Source: Linux manual page proc_pid_mountinfo(5).
fn mounted_at(table: &str, folder: &Path) -> Option<String> {
    let mut found: Option<(&str, String)> = None;
    for line in table.lines() {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let (point, options) = (mount.next()?, mount.next()?);
        let mut file_system = file_system.split(' ');
        let (kind, device) = (file_system.next()?, file_system.next()?);
        let is_deeper = found.as_ref().is_none_or(|(known, _)| point.len() >= known.len());
        if folder.starts_with(point) && is_deeper {
            found = Some((point, format!("{kind} on {device} ({options})")));
        }
    }
    found.map(|(_, words)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_is_found() {
        let table = "24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                     30 24 0:25 / /tmp rw,nosuid - tmpfs tmpfs rw\n\
                     31 24 0:26 / /tm rw - xfs /dev/vdb rw\n";
        let at = |folder: &str| mounted_at(table, Path::new(folder)).unwrap();
        assert_eq!(at("/tmp/engine"), "tmpfs on tmpfs (rw,nosuid)");
        assert_eq!(at("/var"), "ext4 on /dev/vda (rw,relatime)");
        assert_eq!(mounted_at("", Path::new("/")), None);
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        assert_eq!(read("/proc/no/such/file"), UNKNOWN);
        assert_eq!(said(&mut Command::new("no-such-tool-here")), UNKNOWN);
        assert_eq!(caches(usize::MAX), UNKNOWN);
    }
}
