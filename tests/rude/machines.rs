//! Machines that lack what an engine needs or likes: limits, buffers, system calls. What it can do without it says once
//! and does without; the rest it refuses.
//!
//! Limits are those of a shell, refusals of the kernel those of a seccomp filter on the thread that starts the engine.
//! Invariant: a warning names value, effect and remedy, and comes once however many cores there are.

use super::{refused, told};
use crate::support::binaries::binary;
use crate::support::{Engine, Load, Setup, wait_for};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::net::TcpStream;
use std::process::Command;

/// Becomes somebody without rights.
pub(super) const SOMEBODY: &str = "exec setpriv --reuid=65534 --regid=65534 --clear-groups";

/// The same start by a user without rights; none where this process cannot arrange that.
pub(super) fn somebody(setup: &Setup) -> Option<Setup> {
    let mut words = SOMEBODY.split(' ').skip(1);
    let mut command = Command::new(words.next().unwrap());
    let runs = command.args(words).arg(binary("highwater")).arg("--version").output();
    if !rustix::process::geteuid().is_root() || !runs.is_ok_and(|output| output.status.success()) {
        println!("skipped: only root can start an engine as another user, with setpriv, from where all may read it");
        return None;
    }
    Some(Setup { shell: SOMEBODY, ..setup.clone() })
}

/// As [`somebody`], with a limit, and a data directory that belongs to that user.
pub(super) fn limited_somebody(setup: &Setup, limit: &'static str) -> Option<Setup> {
    let user = somebody(setup)?;
    std::os::unix::fs::chown(&setup.data_dir, Some(65534), Some(65534)).unwrap();
    Some(Setup { shell: limit, ..user })
}

/// A system call, perhaps with two arguments, and what the kernel answers to it.
struct Denied {
    call: i64,
    arguments: Option<(i32, i32)>,
}

/// Runs something in a thread for which some calls, and for whose children too, end with an error.
fn without<T: Send>(denied: &[Denied], errno: i32, run: impl FnOnce() -> T + Send) -> T {
    let mut rules = std::collections::BTreeMap::<i64, Vec<SeccompRule>>::new();
    for Denied { call, arguments } in denied {
        let rules = rules.entry(*call).or_default();
        if let Some((second, third)) = arguments {
            let is = |index, value: i32| {
                SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value as u64).unwrap()
            };
            rules.push(SeccompRule::new(vec![is(1, *second), is(2, *third)]).unwrap());
        }
    }
    let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(errno as u32));
    let filter = SeccompFilter::new(rules, allow, refuse, std::env::consts::ARCH.try_into().unwrap()).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    binary("highwater");
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            seccompiler::apply_filter(&program).unwrap();
            run()
        });
        thread.join().unwrap()
    })
}

fn option(level: i32, name: i32) -> Denied {
    Denied { call: libc::SYS_setsockopt, arguments: Some((level, name)) }
}

/// The lines of a log that warn.
fn warnings(engine: &Engine) -> Vec<String> {
    engine.log().lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect()
}

/// The one warning with these words.
fn warned(deed: &str, engine: &Engine, words: &[&str]) {
    let lines = warnings(engine);
    let about: Vec<_> = lines.iter().filter(|line| line.contains(words[0])).collect();
    assert_eq!(about.len(), 1, "{deed}: {words:?} once in {lines:#?}");
    let text = about[0].split_once("WARN").unwrap().1;
    told(deed, text.trim(), "runs", words);
}

/// Two cores where there are two CPUs.
fn two_cores(setup: &Setup) -> Setup {
    Setup { cores: 2, memory: "1GiB", ..setup.clone() }
}

fn verify_a_load(engine: &Engine) {
    let load = ["run", "--rate=10000", "--duration=2s", "--videos=2000", "--producers=2", "--batch=300"];
    Load::verified(engine, &load).finish().assert_verified();
}

#[test]
fn a_start_has_one_line_of_facts() {
    let folder = tempfile::tempdir().unwrap();
    let engine = two_cores(&Setup::new(folder.path())).start();
    let facts = engine.log_line("io_uring=\"ok\"");
    for fact in
        ["runtime=", "gso_segments=", "gro_segments=", "udp_receive_buffer_bytes=", "clock_source=", "direct_io="]
    {
        assert!(facts.contains(fact), "{fact} in {facts}");
    }
}

#[test]
fn without_io_uring_a_start_says_who_forbids_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let setup = Setup::new(&data);
    let uring = [Denied { call: libc::SYS_io_uring_setup, arguments: None }];
    for runtime in crate::support::RUNTIMES {
        let setup = Setup { runtime: Some(runtime), ..setup.clone() };
        let words = ["io_uring is forbidden", "by the seccomp filter", "--security-opt seccomp=", "io_uring_register"];
        let deed = format!("forbid io_uring by a seccomp filter that answers EPERM ({runtime})");
        without(&uring, libc::EPERM, || refused(&deed, &setup, &words));
        let words = ["io_uring is hidden", "Function not implemented", "gVisor", "io_uring_setup"];
        let deed = format!("hide io_uring by a seccomp filter that answers ENOSYS ({runtime})");
        without(&uring, libc::ENOSYS, || refused(&deed, &setup, &words));
    }
    assert!(!data.exists(), "nothing was made");
    setup.start();
}

#[test]
fn without_segmentation_offload_it_is_slower_and_says_so() {
    const SOL_UDP: i32 = 17;
    let folder = tempfile::tempdir().unwrap();
    let setup = two_cores(&Setup::new(folder.path()));
    let offloads = [option(SOL_UDP, 103), option(SOL_UDP, 104)];
    let engine = without(&offloads, libc::ENOPROTOOPT, || setup.start());
    warned("refuse the socket option UDP_SEGMENT", &engine, &["no GSO", "costs a system call", "4.18"]);
    warned("refuse the socket option UDP_GRO", &engine, &["no GRO", "handled by itself", "5.0"]);
    verify_a_load(&engine);
}

#[test]
fn small_socket_buffers_are_told_with_the_setting_to_change() {
    let folder = tempfile::tempdir().unwrap();
    let setup = two_cores(&Setup::new(folder.path()));
    let names = [libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, libc::SO_SNDBUF, libc::SO_SNDBUFFORCE];
    let buffers = names.map(|name| option(libc::SOL_SOCKET, name));
    let engine = without(&buffers, libc::EPERM, || setup.start());
    let words = ["a receive buffer of ", "not 8388608", "`sysctl -w net.core.rmem_max=8388608`"];
    warned("grant a UDP socket no larger receive buffer", &engine, &words);
    let words = ["a send buffer of ", "not 8388608", "`sysctl -w net.core.wmem_max=8388608`"];
    warned("grant a UDP socket no larger send buffer", &engine, &words);
    verify_a_load(&engine);
}

#[test]
fn too_little_lockable_memory_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let with = |runtime, limit| {
        let setup = Setup { runtime: Some(runtime), ..Setup::new(folder.path()) };
        limited_somebody(&setup, limit)
    };
    const NONE: &str = "ulimit -l 0; exec setpriv --reuid=65534 --regid=65534 --clear-groups";
    const LITTLE: &str = "ulimit -l 64; exec setpriv --reuid=65534 --regid=65534 --clear-groups";
    let Some(setup) = with("thread", NONE) else { return };
    let words = ["RLIMIT_MEMLOCK is 0 bytes", "LimitMEMLOCK=64M", "ulimit -l"];
    refused("allow no lockable memory to --runtime=thread", &setup, &words);
    let words = ["RLIMIT_MEMLOCK is 65536 bytes", "needs 524288", "LimitMEMLOCK=64M", "--runtime=thread"];
    refused("allow 64 KiB of lockable memory to --runtime=glommio", &with("glommio", LITTLE).unwrap(), &words);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
    verify_a_load(&with("thread", LITTLE).unwrap().start());
}

#[test]
fn descriptors_are_raised_and_what_is_left_is_for_http() {
    let folder = tempfile::tempdir().unwrap();
    let few = Setup { shell: "ulimit -n 40; exec", ..Setup::new(folder.path()) };
    refused("allow 40 open files", &few, &["the limit on open files is 40", "at least 57", "ulimit -n 65536"]);
    let soft = Setup { shell: "ulimit -Hn 2000; ulimit -Sn 50; exec", ..few.clone() };
    let engine = soft.start();
    engine.log_line("open_files_max=2000");
    assert!(!warnings(&engine).iter().any(|line| line.contains("open files")));
    engine.terminate();
    let engine = Setup { shell: "ulimit -n 80; exec", ..few }.start();
    let words = ["the limit on open files is 80", "HTTP serves fewer connections", "LimitNOFILE", "24 connections"];
    warned("allow 80 open files", &engine, &words);
    hold_all_connections(engine);
}

/// More HTTP connections than there are descriptors: those that count views are not touched.
fn hold_all_connections(mut engine: Engine) {
    let address = engine.ready["http"].as_str().unwrap().to_owned();
    // Few enough for the kernel's queue, where further ones would wait for their very handshake.
    let held: Vec<_> = (0..120).map_while(|_| TcpStream::connect(&address).ok()).collect();
    assert!(held.len() > 80);
    let load = ["run", "--rate=10000", "--duration=2s", "--videos=2000", "--batch=300"];
    let done = Load::unverified(&engine, &load).finish();
    assert_eq!((done.code, done.figure("views_acked")), (Some(0), done.figure("views_sent")), "{done:?}");
    drop(held);
    wait_for("an answer when connections have been given back", || {
        let answer = crate::support::http::try_get(&format!("{}/healthz", engine.url()));
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    });
    assert!(engine.runs());
    assert!(warnings(&engine).iter().filter(|line| line.contains("cannot accept")).count() <= 1, "{}", engine.log());
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn a_limit_on_the_length_of_files_is_an_error_and_no_sudden_death() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { shell: "ulimit -f 10000; exec", ..Setup::new(folder.path()) };
    refused("allow files of 5 MB only", &setup, &["File too large", "ulimit -f unlimited", "LimitFSIZE=infinity"]);
    let engine = Setup { shell: "ulimit -f 200000; exec", ..setup }.start();
    let words = ["files may be 102400000 bytes long at most", "ends the engine", "ulimit -f unlimited"];
    warned("allow files of 100 MB only", &engine, &words);
    verify_a_load(&engine);
}

#[test]
fn address_space_that_cannot_be_reserved_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { shell: "ulimit -v 600000; exec", memory: "1GiB", ..Setup::new(folder.path()) };
    refused(
        "allow less address space than --memory",
        &setup,
        &["refused to reserve", "--memory", "vm.overcommit_memory"],
    );
}
