//! Starts that must be refused for what they name: ports, certificates, memory, CPUs; and the line that tells scripts
//! where a started engine is.
//!
//! Wrong settings are in `settings.rs`. Invariant: a refused start exits 1 and does not change what runs beside it.

use super::{contents, refused};
use crate::support::{Engine, Setup};
use std::net::{SocketAddr, UdpSocket};

#[test]
fn the_ready_line_says_where_the_engine_is() {
    let folder = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".to_owned();
    let engine = Setup { listen: any.clone(), http: any, ..Setup::new(folder.path()) }.start();
    let listen: SocketAddr = engine.address().parse().unwrap();
    let http: SocketAddr = engine.ready["http"].as_str().unwrap().parse().unwrap();
    assert!(listen.port() != 0 && http.port() != 0, "{}", engine.ready);
    assert_eq!(engine.ready["listen"].as_array().unwrap().len(), 1);
    assert_eq!(engine.ca(), folder.path().join("tls/ca.pem").display().to_string());
    assert!(std::fs::read_to_string(engine.ca()).unwrap().contains("BEGIN CERTIFICATE"));
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = Engine::start(&folder.path().join("one"));
    let other = Setup::new(&folder.path().join("two"));
    let place = engine.same_place();
    let listen = |listen: &str| Setup { listen: listen.to_owned(), ..other.clone() };
    let words = [&*place.listen, "Address already in use", "--listen"];
    refused("listen on a UDP port in use", &listen(&place.listen), &words);
    let http = Setup { http: place.http.clone(), ..other.clone() };
    refused("serve HTTP on a TCP port in use", &http, &[&place.http, "Address already in use", "--http"]);
    let nowhere = "192.0.2.1:4433";
    refused(
        "listen on an address that the machine has not",
        &listen(nowhere),
        &[nowhere, "Cannot assign", "address of this machine"],
    );
    let http = Setup { http: nowhere.to_owned(), ..other.clone() };
    refused(
        "serve HTTP on an address that the machine has not",
        &http,
        &[nowhere, "Cannot assign", "address of this machine"],
    );
    assert!(engine.runs());
}

#[test]
fn a_port_that_only_root_may_take_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let privileged = "127.0.0.1:80";
    let setup = Setup { listen: privileged.to_owned(), ..Setup::new(folder.path()) };
    let Some(user) = super::machines::limited_somebody(&setup, super::machines::SOMEBODY) else { return };
    let words = [privileged, "Permission denied", "CAP_NET_BIND_SERVICE"];
    refused("listen on a privileged port", &user, &words);
    let user = Setup { listen: "127.0.0.1:0".to_owned(), http: privileged.to_owned(), ..user };
    refused("serve HTTP on a privileged port", &user, &words);
}

/// With two cores, on one CPU where there are no more.
fn two_cores(setup: &Setup) -> Setup {
    Setup { cores: 2, memory: "1GiB", ..setup.clone() }
}

#[test]
fn a_range_of_ports_must_be_free_as_a_whole() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        println!("skipped: two cores need two CPUs");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A port whose neighbour below is free.
    let (taken, base) = std::iter::repeat_with(|| UdpSocket::bind("127.0.0.1:0").unwrap())
        .take(100)
        .find_map(|taken| {
            let base = SocketAddr::new([127, 0, 0, 1].into(), taken.local_addr().unwrap().port() - 1);
            UdpSocket::bind(base).is_ok().then_some((taken, base))
        })
        .unwrap();
    let setup = Setup { listen: base.to_string(), ..Setup::new(folder.path()) };
    let busy = taken.local_addr().unwrap().to_string();
    refused("start two cores where the second port is in use", &two_cores(&setup), &[&busy, "in use", "--listen"]);
    drop(taken);
    two_cores(&setup).start();
}

#[test]
fn a_cpu_that_is_not_there_is_named_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let with = |flag: &str| Setup { cores: 0, more: vec![flag.to_owned()], ..Setup::new(&data) };
    refused("pin a core to a CPU that is not there", &with("--cores=999"), &["999", "may use the CPUs", "--cores"]);
    let helper = Setup { cores: 1, ..with("--helper-cores=999") };
    refused("name a helper CPU that is not there", &helper, &["--helper-cores", "999", "may use the CPUs"]);
    assert!(!data.exists(), "nothing was made");
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    Engine::start(&data).terminate();
    Engine::start(&folder.path().join("other")).terminate();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let garbage = path("garbage.pem");
    std::fs::write(&garbage, "no certificate").unwrap();
    let (good, key) = (path("data/tls/cert.pem"), path("data/tls/key.pem"));
    let with = |certificate: &str, key: &str| {
        let more = vec![format!("--tls-cert={certificate}"), format!("--tls-key={key}")];
        Setup { more, ..Setup::new(&data) }
    };
    let before = contents(&data);
    let missing = path("nothing.pem");
    refused(
        "name a certificate that is not there",
        &with(&missing, &key),
        &["nothing.pem", "No such file", "--tls-cert"],
    );
    refused("name a key that is not there", &with(&good, &missing), &["nothing.pem", "No such file", "--tls-key"]);
    refused("name garbage as certificate", &with(&garbage, &key), &["garbage.pem", "no certificate", "--tls-cert"]);
    refused("name garbage as key", &with(&good, &garbage), &["garbage.pem", "--tls-key"]);
    let foreign = path("other/tls/key.pem");
    refused("name the key of another certificate", &with(&good, &foreign), &["cert.pem", "--tls-cert and --tls-key"]);
    assert_eq!(contents(&data), before);
    with(&good, &key).start();
}
