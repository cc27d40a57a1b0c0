//! The engine's own keys and certificate: whether they can be read, and whether others can.
//!
//! Not whether the certificate is still valid, which a start sees to. Invariant: what a start makes anew is noted, what
//! it refuses is damage.

use crate::tls;
use highwater_storage::CheckReport;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Files that only the owner may read.
const PRIVATE: [&str; 3] = ["ca-key.pem", "key.pem", "reset.key"];
/// Files that a start makes and reads.
const KNOWN: [&str; 5] = ["ca.pem", "ca-key.pem", "cert.pem", "key.pem", "reset.key"];

/// What was found of the keys.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// What a start would refuse, as `file: what; remedy`: the file and the rest.
    pub(super) damage: Vec<(String, String)>,
}

/// Checks the directory `tls` of a data directory; notes go into the report.
pub(super) fn check(data_dir: &Path, report: &mut CheckReport) -> Keys {
    let mut keys = Keys::default();
    let directory = data_dir.join("tls");
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                keys.damage.push(("tls".to_owned(), format!("cannot list it: {error}; check the rights on it")));
            }
            return keys;
        }
    };
    let mut names: Vec<String> =
        entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    for name in &names {
        match name.as_str() {
            known if KNOWN.contains(&known) => keys.check_file(&directory, known, report),
            name if name.ends_with(".tmp") => {
                report.note(format!("tls/{name} was left half made by a crash: a later start replaces it"));
            }
            name => report.note(format!("tls/{name} is none of the engine's")),
        }
    }
    let is_there = |name: &str| names.iter().any(|known| known == name);
    if is_there("ca.pem") && is_there("cert.pem") && !is_there("ca-key.pem") {
        report.note(
            "tls/ca-key.pem is not there: the certificate serves on, but cannot be made anew when it expires or needs \
             another name; restore the key from a backup",
        );
    }
    keys
}

impl Keys {
    fn check_file(&mut self, directory: &Path, name: &str, report: &mut CheckReport) {
        let path = directory.join(name);
        match std::fs::metadata(&path) {
            Ok(metadata) => {
                self.files += 1;
                self.bytes += metadata.len();
                let mode = metadata.permissions().mode() & 0o777;
                if PRIVATE.contains(&name) && mode & 0o077 != 0 {
                    report.note(format!(
                        "tls/{name} is a secret, and others than its owner may read it (mode {mode:o}): chmod 600 it"
                    ));
                }
            }
            Err(error) => return self.refused(name, &format!("cannot read it: {error}; check the rights on it")),
        }
        if let Err(error) = tls::check_file(&path) {
            self.refused(name, &error.to_string());
        }
    }

    fn refused(&mut self, name: &str, text: &str) {
        self.damage.push((format!("tls/{name}"), text.to_owned()));
    }
}
