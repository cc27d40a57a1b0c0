//! The Prometheus text format, as far as an engine writes it, read back.
//!
//! Not a client library: samples without types or times. Invariant: a line that is no sample is refused with its
//! number, so that nothing is read out of a page that is none. Source: Prometheus, "Exposition formats", text format.

use std::collections::BTreeMap;

/// Before the name of every metric of an engine.
const PREFIX: &str = "highwater_";

/// One line.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// A page of metrics, of those that begin with `highwater_`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Page {
    samples: Vec<Sample>,
}

impl Page {
    /// Reads a page.
    ///
    /// # Errors
    /// The number of the first line that is no sample, and the line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut samples = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let sample = parse_sample(line);
            let mut sample = sample.ok_or_else(|| format!("line {number} is no metric: {:?}", shortened(line)))?;
            if let Some(name) = sample.name.strip_prefix(PREFIX) {
                sample.name = name.to_owned();
                samples.push(sample);
            }
        }
        Ok(Self { samples })
    }

    /// Whether there is nothing of an engine in it.
    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The sum over all labels of a metric, by its name without `highwater_`; none when it is not there.
    pub(super) fn sum(&self, name: &str) -> Option<u64> {
        let mut of_name = self.samples.iter().filter(|sample| sample.name == name).peekable();
        of_name.peek()?;
        Some(of_name.map(|sample| whole(sample.value)).fold(0, u64::saturating_add))
    }

    /// The values of a metric by one of its labels.
    pub(super) fn by(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.name == name) {
            let value = sample.labels.iter().find(|(key, _)| key == label).map(|(_, value)| value.clone());
            let sum: &mut u64 = found.entry(value.unwrap_or_default()).or_default();
            *sum = sum.saturating_add(whole(sample.value));
        }
        found
    }

    /// A label of the first sample of a metric.
    pub(super) fn label(&self, name: &str, label: &str) -> Option<String> {
        let sample = self.samples.iter().find(|sample| sample.name == name)?;
        sample.labels.iter().find(|(key, _)| key == label).map(|(_, value)| value.clone())
    }
}

/// All that an engine counts or measures is whole and not negative; what is no number is nothing.
fn whole(value: f64) -> u64 {
    value as u64
}

fn parse_sample(line: &str) -> Option<Sample> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let end = line.find(|c| !is_name(c)).filter(|end| *end > 0)?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (Vec::new(), rest),
    };
    // A time may stand behind the value.
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    let is_time = |word: &str| word.parse::<f64>().is_ok();
    let is_whole = words.next().is_none_or(is_time) && words.next().is_none();
    is_whole.then(|| Sample { name: name.to_owned(), labels, value })
}

/// Labels with their values, and what stands behind the closing brace.
fn parse_labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (key, value) = rest.split_once("=\"")?;
        let (value, behind) = parse_quoted(value)?;
        labels.push((key.trim().to_owned(), value));
        rest = behind;
    }
}

/// A value up to its closing quote, and what stands behind that.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped => escaped,
            }),
            other => value.push(other),
        }
    }
    None
}

fn shortened(line: &str) -> String {
    line.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_by_name_and_label() {
        let text = "# HELP highwater_videos Distinct.\n# TYPE highwater_videos gauge\nhighwater_videos 7\n\
                    highwater_core_busy_permille{core=\"0\"} 12\nhighwater_core_busy_permille{core=\"1\"} 900 1700000\n\
                    highwater_x{a=\"q\\\"}\\\\\\n,\",b=\"2\",} 1.5e3\nother_total 9\nhighwater_nan NaN\n# EOF\n";
        let page = Page::parse(text).unwrap();
        assert_eq!(page.sum("videos"), Some(7));
        assert_eq!(page.sum("core_busy_permille"), Some(912));
        assert_eq!(page.sum("other_total"), None, "it is none of an engine");
        assert_eq!(page.by("core_busy_permille", "core"), [("0".into(), 12), ("1".into(), 900)].into());
        assert_eq!((page.label("x", "a").unwrap(), page.sum("x")), ("q\"}\\\n,".into(), Some(1500)));
        assert_eq!((page.label("x", "b"), page.label("x", "c")), (Some("2".into()), None));
        assert_eq!(page.sum("nan"), Some(0));
        assert!(Page::parse("").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_metric_is_refused_with_its_line() {
        for wrong in ["<html>", "a", "a b", "a{b=\"c} 1", "a{b} 1", "{a=\"b\"} 1", "a 1 2 3", "a 1 x"] {
            let text = format!("highwater_videos 7\n{wrong}\n");
            assert!(Page::parse(&text).unwrap_err().starts_with("line 2 is no metric"), "{wrong}");
        }
    }
}
