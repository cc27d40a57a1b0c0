//! The part `sweep`: `loadgen sweep` in both encodings, and with long views.
//!
//! Invariant: a sweep without a verified end has no table; that is for `loadgen` to see to.

use crate::load::number;
use crate::report::Report;
use crate::{Bench, children};
use anyhow::{Context, Result, bail};
use highwater_loadgen::process::engine::new_folder;
use highwater_loadgen::table::{aligned, cells};
use serde_json::Value;
use std::process::Command;

/// The user's bytes in a view that has about 100 in all.
const LONG_USER: &str = "--user-bytes=70";

/// A sweep: its name, and the flags that make it different.
const SWEEPS: [(&str, &[&str]); 3] = [
    ("Compact encoding", &["--encoding=compact"]),
    ("Plain encoding", &["--encoding=plain"]),
    ("Plain encoding, views of about 100 bytes", &["--encoding=plain", LONG_USER]),
];

/// A load that takes no time, for tests.
const TINY: [&str; 6] =
    ["--videos=5000", "--prepared=60000", "--batch=500", "--memory=512MiB", "--warm-up=100ms", "--p99-max=10s"];

pub(crate) fn measure(bench: &mut Bench) -> Result<Report> {
    let mut report = Report::default();
    report.say(
        "One engine for each table, on one CPU. It is sent every view made ahead once (`filling`), then as many as it \
         takes (`full`), then at set rates whether it keeps up or not; batches leave by plan, and latency counts from \
         the planned time. Where the generator was late itself a rate is not `valid`: it says nothing of the engine, \
         and is tried once more. All five fields of a view are sent, and all lists are verified in the end.",
    );
    for (number, (name, flags)) in SWEEPS.iter().enumerate() {
        eprintln!("results: sweep: {name}");
        let found = sweep(bench, flags);
        if let (0, Ok(found)) = (number, &found) {
            bench.full_per_s = found["full"]["rate_per_s"].as_f64();
        }
        report.add(name, found.and_then(|found| text(&found)));
    }
    Ok(report)
}

/// Runs it and returns its report.
fn sweep(bench: &Bench, flags: &[&str]) -> Result<Value> {
    let folder = new_folder()?;
    let path = folder.path().join("sweep.json");
    let mut command = Command::new(&bench.loadgen);
    command.arg("sweep").args(own_flags(bench)).args(bench.or_tiny(&[][..], &TINY)).args(flags);
    children::run(command.arg(format!("--report={}", path.display())))?;
    let text = std::fs::read_to_string(&path).context("loadgen wrote no report")?;
    serde_json::from_str(&text).context("the report is no JSON")
}

/// What every measurement of `loadgen` is told.
pub(crate) fn own_flags(bench: &Bench) -> [String; 4] {
    [
        format!("--highwater={}", bench.highwater.display()),
        format!("--engine-cpu={}", bench.engine.engine_cpu),
        format!("--load-cpu={}", bench.engine.load_cpu),
        format!("--duration={}s", bench.seconds),
    ]
}

/// The table, and what is said of the whole sweep.
fn text(found: &Value) -> Result<String> {
    let knee = found["knee_per_s"].as_u64();
    let limit_ms = number(found, "p99_max_us")? / 1000.0;
    let knee_words = match knee {
        Some(knee) => format!("**The knee is at {knee} views/s**, the highest rate that was held"),
        None => "**No rate was held**".to_owned(),
    };
    let verified = if found["verified"] == true { "verified" } else { "not verified" };
    let mut lines = vec![cells(&HEADINGS)];
    lines.push(row("filling", &found["filling"])?);
    lines.push(row("full", &found["full"])?);
    for stage in found["stages"].as_array().context("the report misses stages")? {
        let planned = stage["planned_per_s"].as_u64().context("the report misses planned_per_s")?;
        let is_knee = Some(planned) == knee && stage["generator"]["valid"] == true;
        let name = if is_knee { format!("{planned}, the knee") } else { planned.to_string() };
        lines.push(row(&name, stage)?);
    }
    Ok(format!(
        "{knee_words}: by a generator that was not late itself, views acknowledged as fast as planned, and 99 of 100 \
         batches within {limit_ms} ms. {} distinct videos; all lists {verified}.\n\n{}",
        number(found, "distinct_videos")?,
        aligned(&lines, 1)
    ))
}

const HEADINGS: [&str; 15] = [
    "offered/s",
    "achieved/s",
    "valid",
    "batches",
    "ack p50 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "CPU s/M views",
    "CPU %",
    "MiB",
    "UDP drops",
    "softirq %",
    "bytes/view",
    "load CPU %",
];

fn row(name: &str, stage: &Value) -> Result<Vec<String>> {
    let ms = |path: &str| Ok::<_, anyhow::Error>(format!("{:.2}", number(stage, path)? / 1000.0));
    let valid = match stage["generator"].get("valid") {
        Some(Value::Bool(true)) => "yes",
        Some(Value::Bool(false)) => "no",
        Some(Value::Null) => "-",
        _ => bail!("the report misses generator.valid"),
    };
    Ok(vec![
        name.to_owned(),
        format!("{:.0}", number(stage, "rate_per_s")?),
        valid.to_owned(),
        format!("{:.0}", number(stage, "batches")?),
        ms("ack_latency_us.p50")?,
        ms("ack_latency_us.p99")?,
        ms("ack_latency_us.p999")?,
        ms("ack_latency_us.max")?,
        format!("{:.3}", number(stage, "engine_cpu_s_per_million_views")?),
        format!("{:.0}", number(stage, "engine_cpu_percent")?),
        format!("{:.0}", number(stage, "engine_resident_bytes")? / f64::from(1 << 20)),
        format!("{:.0}", number(stage, "udp_drops")?),
        format!("{:.1}", number(stage, "softirq_percent")?),
        format!("{:.1}", number(stage, "bytes_per_view")?),
        format!("{:.0}", number(stage, "generator.cpu_percent")?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stage(planned_per_s: Option<u64>, valid: Option<bool>) -> Value {
        json!({
            "planned_per_s": planned_per_s, "rate_per_s": 999_999.6, "bytes_per_view": 40.04, "batches": 1220,
            "ack_latency_us": { "p50": 1500, "p99": 9000, "p999": 12_340, "max": 20_000 },
            "generator": { "valid": valid, "cpu_percent": 60.4 },
            "engine_cpu_s_per_million_views": 0.5, "engine_cpu_percent": 50.0,
            "engine_resident_bytes": 3 << 20, "udp_drops": 0, "softirq_percent": 1.25,
        })
    }

    fn found(knee: Option<u64>) -> Value {
        json!({
            "knee_per_s": knee, "p99_max_us": 10_000, "distinct_videos": 42, "verified": true,
            "filling": stage(None, None), "full": stage(None, None),
            "stages": [
                stage(Some(500), Some(true)), stage(Some(1_000_000), Some(false)), stage(Some(1_000_000), Some(true)),
                stage(Some(2_000_000), Some(false)),
            ],
        })
    }

    #[test]
    fn the_knee_is_named_in_text_and_table() {
        let text = text(&found(Some(1_000_000))).unwrap();
        assert!(text.contains("knee is at 1000000 views/s") && text.contains("42 distinct videos; all lists verified"));
        let row = text.lines().find(|line| line.starts_with("| 1000000, the knee |")).unwrap();
        let figures: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).skip(1).collect();
        let expected =
            ["1000000", "yes", "1220", "1.50", "9.00", "12.34", "20.00", "0.500", "50", "3", "0", "1.2", "40.0", "60"];
        assert_eq!(figures, expected);
        for (name, valid) in [("full", "-"), ("1000000 ", "no"), ("2000000 ", "no")] {
            let is_row = |line: &&str| line.starts_with(&format!("| {name}")) && !line.contains("the knee");
            let row = text.lines().find(is_row).unwrap();
            assert_eq!(row.split('|').nth(3).unwrap().trim(), valid, "{row}");
        }
    }

    #[test]
    fn what_was_not_held_or_is_missing_is_said() {
        assert!(text(&found(None)).unwrap().contains("No rate was held"));
        let mut broken = found(Some(500));
        broken["full"].as_object_mut().unwrap().remove("udp_drops");
        assert!(text(&broken).unwrap_err().to_string().contains("udp_drops"));
        let mut broken = found(Some(500));
        broken["full"]["generator"].as_object_mut().unwrap().remove("valid");
        assert!(text(&broken).unwrap_err().to_string().contains("generator.valid"));
    }
}
