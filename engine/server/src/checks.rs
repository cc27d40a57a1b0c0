//! Settings checked against each other, without a look at the machine or the data directory.
//!
//! What it is not: a check of one setting alone, which is part of its definition. Invariant: whatever the settings came
//! from, they pass here before anything is opened or made.

use crate::args::{ServeArguments, SidecarArguments};
use crate::plan::MemoryPlan;
use highwater_pipeline::limits::CORES_MAX;
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Settings that cannot stand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The setting that is told first, by its name in files.
    pub key: &'static str,
    /// What is wrong, the limit and the remedy.
    pub text: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Misfit {}

impl ServeArguments {
    /// All that is wrong with these settings on whatever machine and data directory.
    pub fn check(&self) -> Vec<Misfit> {
        let certificate = check_pair(&self.tls_cert, &self.tls_key);
        let tokens = check_bearer(self.http, self.token_file.as_ref(), "token-file", self.http_tls, "--http-tls");
        let checks = [self.check_cores(), self.check_ports(), self.check_memory(), certificate, tokens];
        checks.into_iter().flatten().collect()
    }

    fn check_cores(&self) -> Option<Misfit> {
        let (count, distinct) = (self.cores.len(), self.cores.iter().collect::<BTreeSet<_>>().len());
        let text = if !(1..=CORES_MAX).contains(&count) {
            format!("--cores names {count} CPUs, allowed are 1 to {CORES_MAX}")
        } else if distinct < count {
            let cores = &self.cores;
            format!("--cores={cores:?} names a CPU twice: two cores on one CPU would only wait for each other")
        } else {
            return None;
        };
        Some(Misfit { key: "cores", text })
    }

    /// Each core has a port of its own, in a row.
    fn check_ports(&self) -> Option<Misfit> {
        let (base, count) = (usize::from(self.listen.port()), self.cores.len());
        let room = usize::from(u16::MAX) + 1 - base;
        // Too many cores are told by themselves.
        if base == 0 || count <= room || count > CORES_MAX {
            return None;
        }
        let (listen, last) = (self.listen, usize::from(u16::MAX) + 1 - count);
        let text = format!(
            "--listen={listen} leaves no port for core {room}: {count} cores need as many ports in a row; choose a port up \
             to {last}"
        );
        Some(Misfit { key: "listen", text })
    }

    /// Shards that are not given are those of the data directory, which may be as few as one.
    fn check_memory(&self) -> Option<Misfit> {
        let cores = u16::try_from(self.cores.len()).ok().filter(|count| (1..=CORES_MAX as u16).contains(count))?;
        let error = MemoryPlan::new(self.memory.as_u64(), self.shards.unwrap_or(1), cores).err()?;
        Some(Misfit { key: "memory", text: error.to_string() })
    }
}

impl SidecarArguments {
    /// All that is wrong with these settings on whatever machine.
    pub fn check(&self) -> Vec<Misfit> {
        let (tokens, has_tls) = (self.reader_token_file.as_ref(), self.tls_cert.is_some());
        let tokens = check_bearer(self.http, tokens, "reader-token-file", has_tls, "--tls-cert and --tls-key");
        [check_pair(&self.tls_cert, &self.tls_key), tokens].into_iter().flatten().collect()
    }
}

fn check_pair(certificate: &Option<PathBuf>, key: &Option<PathBuf>) -> Option<Misfit> {
    let (given, lacking) = match (certificate, key) {
        (Some(_), None) => ("tls-cert", "tls-key"),
        (None, Some(_)) => ("tls-key", "tls-cert"),
        _ => return None,
    };
    let text = format!("--{given} is given without --{lacking}: a certificate and its key go together; give both");
    Some(Misfit { key: given, text })
}

/// Tokens are not sent in the clear over a network.
fn check_bearer(
    http: SocketAddr,
    tokens: Option<&PathBuf>,
    key: &'static str,
    has_tls: bool,
    tls: &str,
) -> Option<Misfit> {
    if tokens.is_none() || has_tls || http.ip().is_loopback() {
        return None;
    }
    let text = format!(
        "--{key} asks readers for tokens, and --http={http} would take them in the clear over a network; add {tls}, or \
         listen on 127.0.0.1"
    );
    Some(Misfit { key, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn misfits(flags: &[&str]) -> Vec<Misfit> {
        let flags = ["--data-dir=d"].into_iter().chain(flags.iter().copied());
        ServeArguments::from_flags(flags).unwrap().check()
    }

    #[test]
    fn what_fits_is_let_through() {
        let cores = (0..64).map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(",");
        for flags in [
            &[][..],
            &["--listen=127.0.0.1:65534", "--cores=0,1"],
            &["--listen=127.0.0.1:0", "--cores=0,1"],
            &["--memory=512MiB", "--shards=16"],
            &["--tls-cert=c", "--tls-key=k"],
            &["--token-file=t"],
            &["--token-file=t", "--http=0.0.0.0:80", "--http-tls"],
            &["--memory=64GiB", &format!("--cores={cores}")],
        ] {
            assert_eq!(misfits(flags), [], "{flags:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_remedy() {
        let cores = format!("--cores={}", (0..65).map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(","));
        for (flags, key, words) in [
            (&["--cores=3,3"][..], "cores", &["[3, 3]", "twice"][..]),
            (&[&cores], "cores", &["65 CPUs", "1 to 64"]),
            (&[&format!("--cores={}", vec!["0"; 65_537].join(","))], "cores", &["65537 CPUs", "1 to 64"]),
            (&["--listen=127.0.0.1:65535", "--cores=0,1"], "listen", &["core 1", "up to 65534"]),
            (&["--memory=1MiB"], "memory", &["1048576", "512MiB"]),
            (&["--memory=512MiB", "--cores=0,1"], "memory", &["2 cores"]),
            (&["--memory=512MiB", "--shards=256"], "memory", &["256 shards"]),
            (&["--tls-cert=c"], "tls-cert", &["--tls-key"]),
            (&["--tls-key=k"], "tls-key", &["--tls-cert"]),
            (&["--token-file=t", "--http=0.0.0.0:80"], "token-file", &["in the clear", "--http-tls", "127.0.0.1"]),
        ] {
            let found = misfits(flags);
            assert_eq!(found.iter().map(|misfit| misfit.key).collect::<Vec<_>>(), [key], "{flags:?}: {found:?}");
            words.iter().for_each(|word| assert!(found[0].text.contains(word), "{word:?} is not said: {found:?}"));
        }
    }

    #[test]
    fn all_misfits_are_told_at_once() {
        assert_eq!(misfits(&["--cores=0,0", "--memory=1MiB", "--tls-key=k"]).len(), 3);
    }
}
