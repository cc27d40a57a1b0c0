//! How many datagrams the kernel dropped for want of room in the socket's receive buffer.
//!
//! Read from `/proc/net/udp` and `/proc/net/udp6` (the last column, by inode), so only for metrics, not for every turn.
//! Source: Linux, `net/ipv4/udp.c`, `udp4_format_sock`.

use std::os::fd::BorrowedFd;

/// Reads the count of one socket; may be used from any thread while that socket is open. The default counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelDrops {
    inode: Option<u64>,
}

impl KernelDrops {
    /// The count of this socket.
    pub(super) fn of(socket: BorrowedFd<'_>) -> Self {
        Self { inode: rustix::fs::fstat(socket).ok().map(|stat| stat.st_ino) }
    }

    /// Datagrams dropped since the socket was made; `None` where the kernel does not say.
    #[must_use]
    pub fn read(self) -> Option<u64> {
        let inode = self.inode?;
        ["/proc/net/udp", "/proc/net/udp6"]
            .iter()
            .find_map(|path| drops_of_inode(&std::fs::read_to_string(path).ok()?, inode))
    }
}

/// Columns: sl local rem st tx:rx tr:when retrnsmt uid timeout inode ref pointer drops.
fn drops_of_inode(table: &str, inode: u64) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace().skip(9);
        if columns.next()?.parse() != Ok(inode) {
            return None;
        }
        columns.nth(2)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_line_of_the_inode_is_found() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             1234: 0100007F:1151 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 987 2 0000000000000000 42\n";
        assert_eq!(drops_of_inode(table, 987), Some(42));
        assert_eq!(drops_of_inode(table, 98), None);
    }

    #[test]
    fn a_live_socket_has_no_drops_yet() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(KernelDrops::of(socket.as_fd()).read(), Some(0));
    }
}
