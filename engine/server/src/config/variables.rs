//! Settings from variables of the environment.
//!
//! Invariant: a variable that begins with `HIGHWATER_` is a known one, one that Kubernetes made for a service of that
//! name, or refused. An empty one counts as not set.

use super::nearest::did_you_mean;
use super::setting::{self, check_alone, file_commands, variable};
use super::{Given, Layer, Source};
use clap::{Arg, Command};
use std::ffi::{OsStr, OsString};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The variable that filters what is logged. It is no setting of a command.
pub(super) const LOG: &str = "HIGHWATER_LOG";

const PREFIX: &str = "HIGHWATER_";

/// The variables of a process.
#[derive(Debug, Default)]
pub(super) struct Variables(Vec<(OsString, OsString)>);

impl Variables {
    pub(super) fn new(all: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self(all.into_iter().filter(|(name, _)| name.to_string_lossy().starts_with(PREFIX)).collect())
    }

    /// A variable's value; an empty one has none.
    pub(super) fn get(&self, name: &OsStr) -> Option<&OsStr> {
        let found = self.0.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| value.as_os_str())
    }

    /// What is wrong with the names.
    pub(super) fn strangers(&self, definition: &Command) -> Vec<String> {
        let all = file_commands(definition).flat_map(Command::get_arguments).map(variable);
        let mut known: Vec<&str> = all.filter_map(OsStr::to_str).chain([LOG]).collect();
        known.sort_unstable();
        known.dedup();
        let mut wrong = Vec::new();
        for (name, value) in &self.0 {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            if !known.contains(&&*name) && !is_from_kubernetes(&name, &value) {
                let tip = did_you_mean(&name, known.iter().copied());
                let name = name.escape_debug();
                wrong.push(format!(
                    "{name} is no variable of highwater{tip}; unset it, allowed are {}",
                    known.join(", ")
                ));
            }
        }
        wrong
    }

    /// The settings of `command` that variables give, and what is wrong with their values.
    pub(super) fn layer(&self, command: &Command) -> (Layer, Vec<String>) {
        let (mut layer, mut wrong) = (Layer::new(), Vec::new());
        for arg in command.get_arguments() {
            let (name, key) = (variable(arg).to_string_lossy().into_owned(), setting::key(arg));
            let Some(value) = self.get(variable(arg)) else { continue };
            let words = words(arg, value);
            match check_alone(arg, &words) {
                Ok(()) => {
                    layer.insert(key.to_owned(), Given { words, source: Source::Variable(name) });
                }
                Err(reason) => wrong.push(format!("{name}={}: {reason}", value.to_string_lossy().escape_debug())),
            }
        }
        (layer, wrong)
    }

    /// The filter of what is logged, if one is given.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn log_filter(&self) -> Result<Option<EnvFilter>, String> {
        let Some(value) = self.get(OsStr::new(LOG)) else { return Ok(None) };
        let text = value.to_string_lossy();
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        let refuse = |part: &str, tip: &str| {
            let choice = levels.join(", ");
            format!(
                "{LOG}={}: {part}{tip}; a filter is a level ({choice}), or levels by module as in info,highwater=debug",
                text.escape_debug()
            )
        };
        for part in text.split(',').map(str::trim) {
            // A word alone would be taken for a module, and all other modules would fall silent.
            let is_alone = !part.contains(|one: char| "=[:".contains(one)) && !part.starts_with("highwater");
            if is_alone && !part.is_empty() && part.parse::<LevelFilter>().is_err() {
                return Err(refuse(&format!("{part:?} is no level"), &did_you_mean(part, levels)));
            }
        }
        EnvFilter::try_new(&text).map(Some).map_err(|error| refuse(&error.to_string(), ""))
    }
}

/// The words of a variable: a list has a comma between two.
fn words(arg: &Arg, value: &OsStr) -> Vec<OsString> {
    match (value.to_str(), arg.get_value_delimiter()) {
        (Some(text), Some(comma)) => text.split(comma).map(Into::into).collect(),
        _ => vec![value.to_owned()],
    }
}

/// Whether Kubernetes makes such a variable for a service whose name begins with `highwater`.
///
/// Source: Kubernetes documentation, "Service", "Environment variables".
fn is_from_kubernetes(name: &str, value: &str) -> bool {
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    let Some(rest) = name.strip_prefix("HIGHWATER").filter(|rest| is_plain(rest)) else { return false };
    if rest.ends_with("_SERVICE_HOST") || rest.ends_with("_SERVICE_PORT") || rest.contains("_SERVICE_PORT_") {
        return true;
    }
    // HIGHWATER_HTTP_PORT=8080 would be a slip of somebody; what Kubernetes makes holds an address.
    if rest.ends_with("_PORT") && !rest.contains("_PORT_") {
        return ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    }
    let Some((_, port)) = rest.split_once("_PORT_") else { return false };
    let mut parts = port.split('_');
    let (number, protocol, what, more) = (parts.next(), parts.next(), parts.next(), parts.next());
    number.is_some_and(|number| number.parse::<u16>().is_ok())
        && matches!(protocol, Some("TCP" | "UDP" | "SCTP"))
        && matches!(what, None | Some("PROTO" | "PORT" | "ADDR"))
        && more.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::definition;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        Variables::new(pairs.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn what_kubernetes_makes_is_let_through() {
        for (name, value) in [
            ("HIGHWATER_SERVICE_HOST", "10.0.0.1"),
            ("HIGHWATER_SERVICE_PORT", "4433"),
            ("HIGHWATER_SERVICE_PORT_HTTP", "8080"),
            ("HIGHWATER_PORT", "udp://10.0.0.1:4433"),
            ("HIGHWATER_PORT_4433_UDP", "udp://10.0.0.1:4433"),
            ("HIGHWATER_PORT_4433_UDP_PROTO", "udp"),
            ("HIGHWATER_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("HIGHWATER_SIDECAR_PORT_8080_TCP_PORT", "8080"),
            ("HIGHWATER_SIDECAR_SERVICE_HOST", "10.0.0.1"),
            ("HIGHWATER_SIDECAR_PORT", "tcp://10.0.0.1:8080"),
        ] {
            assert!(is_from_kubernetes(name, value), "{name}");
        }
        for (name, value) in [
            ("HIGHWATER_PORT", "8080"),
            ("HIGHWATER_HTTP_PORT", "8080"),
            ("HIGHWATER_PORT_TCP", "8080"),
            ("HIGHWATER_PORT_8080_HTTP", "8080"),
            ("HIGHWATER_PORT_8080_TCP_ADDR_MORE", "8080"),
            ("HIGHWATER_MEMROY", "4GiB"),
        ] {
            assert!(!is_from_kubernetes(name, value), "{name}");
        }
    }

    #[test]
    fn strangers_are_told_with_the_nearest_known() {
        let known =
            variables(&[("HIGHWATER_LOG", "info"), ("HIGHWATER_ONCE", "1"), ("HIGHWATER_CONFIG", "f"), ("PATH", "")]);
        assert_eq!(known.strangers(&definition()), Vec::<String>::new());
        let wrong = variables(&[("HIGHWATER_MEMROY", "4GiB"), ("HIGHWATER_", "")]).strangers(&definition());
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].contains("did you mean HIGHWATER_MEMORY?"), "{wrong:?}");
    }

    #[test]
    fn filters_are_read_or_refused() {
        let filter = |text: &str| variables(&[("HIGHWATER_LOG", text)]).log_filter().map(|filter| filter.is_some());
        for (text, is_given) in [("", false), ("debug", true), ("INFO,highwater=debug", true), ("highwater_disk", true)]
        {
            assert_eq!(filter(text), Ok(is_given), "{text}");
        }
        assert!(filter("debgu").unwrap_err().contains("did you mean debug?"));
        for word in ["warning", "err", "verbose", "info,none"] {
            assert!(filter(word).unwrap_err().contains("is no level"), "{word}");
        }
        assert!(filter("highwater=loud").unwrap_err().contains("off, error, warn, info, debug, trace"));
    }
}
