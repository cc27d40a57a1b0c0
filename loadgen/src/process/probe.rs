//! What the kernel counts beside a process: datagrams dropped before its sockets, and time a CPU spent in softirqs.
//!
//! Invariant: it only reads. Source: Linux manual page proc_net(5) (`udp`), proc_stat(5).

use anyhow::{Context, Result};

/// Datagrams that were dropped at the UDP sockets of a port of this machine, since these were opened.
///
/// # Errors
/// When the kernel's table cannot be read.
pub fn udp_drops(port: u16) -> Result<u64> {
    let mut drops = 0;
    for path in ["/proc/net/udp", "/proc/net/udp6"] {
        match std::fs::read_to_string(path) {
            Ok(table) => drops += drops_of(&table, port),
            // A kernel without IPv6 has no table of it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(path),
        }
    }
    Ok(drops)
}

/// The last column of the lines whose second one ends in the port, in hexadecimal.
fn drops_of(table: &str, port: u16) -> u64 {
    let suffix = format!(":{port:04X}");
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = lines.filter(|fields| fields.get(1).is_some_and(|local| local.ends_with(&suffix)));
    own.filter_map(|fields| fields.last()?.parse::<u64>().ok()).sum()
}

/// Time of some CPUs so far, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTicks {
    /// In softirqs.
    pub softirq: u64,
    /// In all, idle time included.
    pub total: u64,
}

impl CpuTicks {
    /// As of now.
    ///
    /// # Errors
    /// When the kernel tells nothing of one of the CPUs.
    pub fn now(cpus: &[usize]) -> Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let mut sum = Self { softirq: 0, total: 0 };
        for cpu in cpus {
            let one = Self::parse(&stat, *cpu).with_context(|| format!("/proc/stat has no line for CPU {cpu}"))?;
            sum = Self { softirq: sum.softirq + one.softirq, total: sum.total + one.total };
        }
        Ok(sum)
    }

    fn parse(stat: &str, cpu: usize) -> Option<Self> {
        let name = format!("cpu{cpu}");
        let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name))?;
        // user nice system idle iowait irq softirq steal; time of guests is in user time as well.
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|text| text.parse().ok()).collect();
        Some(Self { softirq: *ticks.get(6)?, total: ticks.iter().sum() })
    }

    /// Softirqs' part of the time since `earlier`, in percent.
    #[must_use]
    pub fn softirq_percent_since(&self, earlier: &Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total).max(1);
        100.0 * self.softirq.saturating_sub(earlier.softirq) as f64 / total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_those_of_the_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                     12: 0100007F:1151 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4711 2 000 37\n\
                     13: 00000000:1152 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4712 2 000 5\n\
                     14: 00000000:1151 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4713 2 000 3\n";
        assert_eq!((drops_of(table, 0x1151), drops_of(table, 0x1152), drops_of(table, 1)), (40, 5, 0));
    }

    #[test]
    fn a_socket_of_this_process_is_found_and_has_lost_nothing() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(udp_drops(socket.local_addr().unwrap().port()).unwrap(), 0);
    }

    #[test]
    fn softirqs_are_a_share_of_all_time_between_two_looks() {
        let stat = |softirq| {
            format!("cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 10 0 20 60 0 0 {softirq} 0 7 0\ncpu1 1 1 1 1 1 1 1 1 1 1\n")
        };
        let parse = |softirq| CpuTicks::parse(&stat(softirq), 0).unwrap();
        assert_eq!(parse(10), CpuTicks { softirq: 10, total: 100 });
        let later = CpuTicks { softirq: 35, total: 200 };
        assert!((later.softirq_percent_since(&parse(10)) - 25.0).abs() < 1e-9);
        assert_eq!(CpuTicks::parse(&stat(1), 2), None);
    }
}
