//! Which stage of a view's way a sample of the engine belongs to, by thread, kernel call and symbol.
//!
//! Not a call graph: the release build keeps no frame pointers, so of the engine's own code only the innermost symbol
//! is known, of the kernel's the whole stack. Invariant: the first rule that fits wins, and what fits none is the rest.

use crate::samples::Sample;

/// A stage of a view's way, or one of the engine's helpers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Network,
    Crypto,
    Quic,
    Checks,
    Log,
    Rows,
    Counting,
    Publishing,
    Helper(&'static str),
    Rest,
}

impl Stage {
    pub(crate) fn name(self) -> String {
        let name = match self {
            Self::Network => "UDP and the kernel's network",
            Self::Crypto => "QUIC: AES-GCM (ring)",
            Self::Quic => "QUIC: the rest (quinn, driver, streams, their buffers)",
            Self::Checks => "batch checks (CRC-32C, UTF-8, decoding)",
            Self::Log => "log (copies, records, io_uring and its workers)",
            Self::Rows => "verdicts and rows (hash, judge, push_rows, lanes)",
            Self::Counting => "counting (tables, boards)",
            Self::Publishing => "minute's edge, cuts, lists to publish",
            Self::Helper(thread) => return format!("helper `{thread}`"),
            Self::Rest => "rest (waiting, waking, clock, interrupts)",
        };
        name.to_owned()
    }
}

/// Where a rule's words are looked for.
enum At {
    /// The beginning of the thread's name.
    Thread,
    /// Any symbol of the kernel's stack.
    Kernel,
    /// The innermost symbol.
    Symbol,
}

struct Rule(Stage, At, &'static [&'static str]);

const RULES: [Rule; 24] = [
    // What interrupts a thread is not the thread's work.
    Rule(Stage::Network, At::Kernel, &["net_rx_action", "__udp", "udp_", "udpv6_", "recvmmsg", "_recvmsg", "_sendmsg"]),
    Rule(Stage::Log, At::Thread, &["iou-wrk", "iou-sqp"]),
    Rule(Stage::Helper("store"), At::Thread, &["store"]),
    Rule(Stage::Helper("segments"), At::Thread, &["segments"]),
    Rule(Stage::Helper("jobs"), At::Thread, &["jobs"]),
    Rule(Stage::Helper("archive"), At::Thread, &["archive"]),
    Rule(Stage::Helper("prefault"), At::Thread, &["prefault"]),
    Rule(Stage::Helper("merge"), At::Thread, &["merge"]),
    Rule(Stage::Helper("history"), At::Thread, &["history"]),
    Rule(Stage::Helper("http"), At::Thread, &["http"]),
    Rule(Stage::Helper("access"), At::Thread, &["access"]),
    Rule(Stage::Log, At::Kernel, &["io_uring_enter", "io_submit_sqes", "io_wq_", "task_work_run", "blk_mq_"]),
    Rule(
        Stage::Crypto,
        At::Symbol,
        &["ring_core", "ring::aead", "aes_gcm", "ghash", "PacketKey", "HeaderProtectionKey"],
    ),
    Rule(Stage::Quic, At::Symbol, &["quinn", "rustls", "highwater::quic", "highwater::streams", "bytes::"]),
    // Datagrams are what is allocated all the time.
    Rule(Stage::Quic, At::Symbol, &["malloc", "_int_free", "cfree", "realloc", "unlink_chunk", "sendmsg", "recvmmsg"]),
    Rule(Stage::Checks, At::Symbol, &["crc32c", "crc_u64", "utf8", "highwater_proto::batch", "highwater_proto::wire"]),
    Rule(Stage::Log, At::Symbol, &["memmove", "memcpy", "memset", "LogWriter", "highwater_storage", "highwater_disk"]),
    Rule(Stage::Log, At::Symbol, &["Pipeline>::append", "io_uring::"]),
    Rule(
        Stage::Publishing,
        At::Symbol,
        &[
            "highwater_ranking::marker",
            "highwater_ranking::cut",
            "highwater_ranking::top",
            "marking",
            "Board::freeze",
            "Board::scan",
        ],
    ),
    Rule(Stage::Counting, At::Symbol, &["highwater_pipeline::counting", "highwater_pipeline::lane_in"]),
    Rule(Stage::Rows, At::Symbol, &["highwater_pipeline", "highwater_lanes", "xxh3", "highwater_ranking::cell"]),
    Rule(Stage::Rows, At::Symbol, &["highwater_ranking::hash", "highwater_ranking::calendar"]),
    // What is compared byte by byte is ids.
    Rule(Stage::Counting, At::Symbol, &["highwater_ranking", "highwater_memory", "memcmp"]),
    // What of the protocol is no batch are answers and frames.
    Rule(Stage::Quic, At::Symbol, &["highwater_proto"]),
];

/// The stage of a sample.
pub(crate) fn stage(sample: &Sample) -> Stage {
    let fits = |Rule(_, at, words): &&Rule| match at {
        At::Thread => words.iter().any(|word| sample.thread.starts_with(word)),
        At::Kernel => sample.kernel.iter().any(|symbol| words.iter().any(|word| symbol.contains(word))),
        At::Symbol => words.iter().any(|word| sample.symbol.contains(word)),
    };
    RULES.iter().find(fits).map_or(Stage::Rest, |Rule(stage, ..)| *stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(thread: &str, symbol: &str, kernel: &[&str]) -> Stage {
        let kernel = kernel.iter().map(|symbol| (*symbol).to_owned()).collect();
        stage(&Sample { thread: thread.to_owned(), weight: 1, symbol: symbol.to_owned(), kernel })
    }

    #[test]
    fn the_core_s_own_symbols_find_their_stages() {
        for (symbol, expected) in [
            ("ring_core_0_17_14__aes_gcm_dec_update_vaes_avx2", Stage::Crypto),
            ("ring_core_0_17_14__gcm_ghash_vpclmulqdq_avx2_1", Stage::Crypto),
            ("ring::aead::quic::aes_new_mask", Stage::Crypto),
            ("quinn_proto::connection::Connection::process_payload", Stage::Quic),
            ("<highwater::streams::Intakes as highwater::quic::Application>::stream_readable", Stage::Quic),
            ("_int_malloc", Stage::Quic),
            ("crc32c::hw_x86_64::crc_u64_parallel3", Stage::Checks),
            ("simdutf8::implementation::x86::avx2::validate_utf8_basic", Stage::Checks),
            ("highwater_proto::batch::column::StringColumn::decode", Stage::Checks),
            ("__memmove_avx_unaligned_erms", Stage::Log),
            ("highwater_storage::log::writer::LogWriter::commit", Stage::Log),
            ("<highwater_disk::uring::UringLog as highwater_storage::log::device::LogDevice>::submit", Stage::Log),
            ("highwater_pipeline::admission::<impl highwater_pipeline::pipeline::Pipeline>::append", Stage::Log),
            ("highwater_pipeline::admission::<impl highwater_pipeline::pipeline::Pipeline>::admit", Stage::Rows),
            ("highwater_pipeline::verdicts::Judged::judge", Stage::Rows),
            ("highwater_pipeline::rows::RowRule::push_rows", Stage::Rows),
            ("highwater_ranking::cell::push_row", Stage::Rows),
            ("highwater_pipeline::mesh::LaneOut::push", Stage::Rows),
            ("highwater_ranking::core::CoreRanking::apply", Stage::Counting),
            ("highwater_ranking::board::Board::increased", Stage::Counting),
            ("highwater_pipeline::counting::Counting::turn", Stage::Counting),
            ("__memcmp_avx2_movbe", Stage::Counting),
            ("highwater_ranking::board::Board::freeze", Stage::Publishing),
            ("highwater_ranking::marker::<impl highwater_ranking::core::CoreRanking>::step", Stage::Publishing),
            ("highwater_proto::ack::Ack::encode", Stage::Quic),
            ("clock_gettime@@GLIBC_2.17", Stage::Rest),
        ] {
            assert_eq!(of("core-0", symbol, &[]), expected, "{symbol}");
        }
    }

    #[test]
    fn the_kernel_s_work_is_told_by_the_call_and_comes_before_the_thread() {
        let receiving = ["_copy_to_iter", "udp_recvmsg", "do_recvmmsg", "do_syscall_64"];
        assert_eq!(of("core-0", "_copy_to_iter", &receiving), Stage::Network);
        let arriving = ["fib_lookup_good_nhc", "net_rx_action", "handle_softirqs"];
        assert_eq!(of("store", "fib_lookup_good_nhc", &arriving), Stage::Network);
        let writing = ["gup_fast_fallback", "io_submit_sqes", "__do_sys_io_uring_enter", "do_syscall_64"];
        assert_eq!(of("core-0", "gup_fast_fallback", &writing), Stage::Log);
        assert_eq!(of("iou-wrk-4711", "iowrite16", &["iowrite16", "vp_notify"]), Stage::Log);
        assert_eq!(of("core-0", "finish_task_switch", &["finish_task_switch", "__schedule"]), Stage::Rest);
    }

    #[test]
    fn what_a_helper_does_is_the_helper_s() {
        let writing = ["copy_folio_from_iter_atomic", "ext4_buffered_write_iter", "vfs_write"];
        assert_eq!(of("store", writing[0], &writing), Stage::Helper("store"));
        assert_eq!(of("merge", "highwater_ranking::top::merge", &[]), Stage::Helper("merge"));
        assert_eq!(of("core-0", "unheard_of", &[]), Stage::Rest);
    }
}
