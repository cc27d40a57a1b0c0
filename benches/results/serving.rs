//! The part `serving`: lists over HTTP by the engine, beside the same bytes from the bare HTTP stack, idle and loaded.
//!
//! Invariant: engine and fixed answer are asked in turn, on the same CPU, by the same tool with the same settings, and
//! medians of rounds are told.

use crate::Bench;
use crate::children::find_tool;
use crate::fixed::{Answer, Fixed};
use crate::load::{Load, number};
use crate::oha::{Answers, Asking, CONNECTIONS, REMEDY, ask};
use crate::report::Report;
use anyhow::{Result, bail};
use highwater_loadgen::measure::median;
use highwater_loadgen::process::engine::{Engine, new_folder};
use highwater_loadgen::table::{aligned, cells};
use std::time::Duration;

const LIST_ROWS: [u32; 3] = [10, 100, 1000];
const ROUNDS: u32 = 3;
/// The modest rate at which latency is measured.
const MODEST_PER_S: u32 = 200;
/// The list that latency is measured with.
const MODEST_ROWS: u32 = 100;
/// Seconds that the load goes on beyond the questions that are asked meanwhile.
const MARGIN_S: u64 = 4;
const POLL_EVERY: Duration = Duration::from_millis(50);

/// The engine that is asked, and the load that it gets.
struct Serving<'a> {
    bench: &'a Bench,
    engine: Engine,
    /// Flags of every load.
    views: [String; 2],
}

pub(crate) fn measure(bench: &Bench) -> Result<Report> {
    find_tool("oha", REMEDY)?;
    let setup = bench.engine.setup(bench.or_tiny("2GiB", "512MiB"))?;
    // The limit on one address's requests is not what is measured.
    let engine = Engine::start_with(&new_folder()?, &setup, "thread", &["--http-rate-max=10000000"])?;
    let (videos, prepared) = bench.or_tiny((5000, 4_000_000), (1500, 60_000));
    let views = [format!("--videos={videos}"), format!("--prepared={prepared}")];
    let serving = Serving { bench, engine, views };
    let verify = format!("--verify=http://{}", serving.engine.http()?);
    let filled = serving.start_load(&["--rate=max".to_owned(), verify], bench.seconds)?.finish()?;
    let mut report = Report::default();
    report.say(format!(
        "An engine with {videos} videos, its lists verified, asked by `oha` with {CONNECTIONS} kept connections for \
         {} s at a time; beside it the same headers and body, fixed, from the same hyper with the same settings on the \
         same CPU: the most that this HTTP stack can do.",
        bench.seconds
    ));
    report.add(
        &format!("As many as are answered: medians of {ROUNDS} rounds of the one and the other in turn"),
        serving.throughput(),
    );
    report.add(
        &format!("{MODEST_PER_S} questions a second for {MODEST_ROWS} rows, in the same way"),
        number(&filled, "rate_per_s").and_then(|full_per_s| serving.latency(full_per_s)),
    );
    serving.engine.stop()?;
    Ok(report)
}

impl Serving<'_> {
    fn url(&self, rows: u32) -> Result<String> {
        Ok(format!("http://{}/v1/videos/top?period=hour&k={rows}", self.engine.http()?))
    }

    fn start_load(&self, flags: &[String], seconds: u64) -> Result<Load> {
        let duration = [format!("--duration={seconds}s")];
        Load::start(self.bench, &self.engine, &[&self.views[..], flags, &duration].concat())
    }

    fn asking(&self, per_s: Option<u32>, gzip: bool) -> Asking {
        Asking { cpu: self.bench.engine.load_cpu, seconds: self.bench.seconds, per_s, gzip }
    }

    fn throughput(&self) -> Result<String> {
        let heads =
            ["rows", "body bytes", "encoding", "engine/s", "p50 us", "p99 us", "fixed/s", "p50 us", "p99 us", "%"];
        let mut lines = vec![cells(&heads)];
        for rows in LIST_ROWS {
            for gzip in [false, true] {
                let answer = Answer::of(&self.url(rows)?, gzip)?;
                if gzip && !answer.is_compressed() {
                    if rows > LIST_ROWS[0] {
                        bail!("a list of {rows} rows came without gzip");
                    }
                    continue;
                }
                let mut line = cells(&[&rows.to_string(), &answer.body.len().to_string()]);
                line.push(if gzip { "gzip" } else { "none" }.to_owned());
                let fixed = Fixed::start(self.bench.engine.engine_cpu, answer)?;
                let [own, bare] =
                    in_turn([&self.url(rows)?, &fixed.url()], &self.asking(None, gzip), &format!("{rows} rows"))?;
                for one in [own, bare] {
                    line.extend([one.per_s, one.p50_us, one.p99_us].map(|figure| format!("{figure:.0}")));
                }
                line.push(format!("{:.1}", 100.0 * own.per_s / bare.per_s));
                lines.push(line);
            }
        }
        let small = "The shortest list is too small to be compressed.";
        Ok(format!("{}\n\n{small}", aligned(&lines, 0)))
    }

    /// Latency at a modest rate, of an idle engine and of one that takes views at half of what it can.
    fn latency(&self, own_full_per_s: f64) -> Result<String> {
        let url = self.url(MODEST_ROWS)?;
        let fixed = Fixed::start(self.bench.engine.engine_cpu, Answer::of(&url, false)?)?;
        let asking = self.asking(Some(MODEST_PER_S), false);
        let mut lines = vec![cells(&["answer", "engine", "answers/s", "p50 us", "p99 us", "max us"])];
        let urls = [&url, &fixed.url()];
        let mut both = |engine: &str| {
            let what = format!("{MODEST_ROWS} rows, {engine}");
            for (answer, found) in ["list", "fixed"].into_iter().zip(in_turn(urls, &asking, &what)?) {
                let mut line = cells(&[answer, engine]);
                line.extend([found.per_s, found.p50_us, found.p99_us, found.max_us].map(|one| format!("{one:.0}")));
                lines.push(line);
            }
            Ok::<_, anyhow::Error>(())
        };
        both("idle")?;
        let half_per_s = (self.bench.full_per_s.unwrap_or(own_full_per_s) / 2.0).max(1.0);
        let asked_s = u64::from(ROUNDS) * 2 * self.bench.seconds;
        let mut load = self.start_load(&[format!("--rate={half_per_s:.0}")], asked_s + MARGIN_S)?;
        self.wait_until_begun(&mut load)?;
        both("taking views")?;
        if !load.is_running()? {
            bail!("the load had ended before the last question; its figures would be those of an idle engine");
        }
        let report = load.finish()?;
        let late = if report["generator"]["valid"] == true {
            ""
        } else {
            ", which is not the engine's alone, since the generator was late itself"
        };
        let of = match self.bench.full_per_s {
            Some(_) => "the full rate of the sweep in compact encoding",
            None => "what this engine with its few videos takes",
        };
        Ok(format!(
            "{}\n\nTaking views is {:.0} of them a second, half of {of}, acknowledged within {:.1} ms (p99){late}. The \
             engine's core, its HTTP thread and the fixed answer share the engine's CPU. `oha` and `loadgen`, which \
             waits awake for the last 2 ms before a batch, share the load's: waiting for that CPU is in these \
             latencies, and the fixed answer tells how much.",
            aligned(&lines, 2),
            number(&report, "rate_per_s")?,
            number(&report, "ack_latency_us.p99")? / 1000.0,
        ))
    }

    /// Waits until views come in, which are made ahead before.
    fn wait_until_begun(&self, load: &mut Load) -> Result<()> {
        let received = || self.engine.metric("highwater_views_received_total");
        let before = received()?;
        while received()? <= before {
            if !load.is_running()? {
                bail!("the load ended before it had begun\n{}", self.engine.log_tail());
            }
            std::thread::sleep(POLL_EVERY);
        }
        Ok(())
    }
}

/// The engine's list and the fixed answer, round by round.
fn in_turn([own_url, bare_url]: [&String; 2], asking: &Asking, what: &str) -> Result<[Answers; 2]> {
    let [mut own, mut bare] = [Vec::new(), Vec::new()];
    for round in 1..=ROUNDS {
        eprintln!("results: serving: {what}, round {round} of {ROUNDS}");
        own.push(ask(own_url, asking)?);
        bare.push(ask(bare_url, asking)?);
    }
    Ok([middle(&own), middle(&bare)])
}

/// The median of each figure over rounds.
fn middle(rounds: &[Answers]) -> Answers {
    let of = |figure: fn(&Answers) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        median(&values)
    };
    Answers {
        per_s: of(|one| one.per_s),
        p50_us: of(|one| one.p50_us),
        p99_us: of(|one| one.p99_us),
        max_us: of(|one| one.max_us),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_each_figure_by_itself() {
        let answers = |per_s, p50_us| Answers { per_s, p50_us, p99_us: 1.0, max_us: 2.0 };
        let middle = middle(&[answers(30.0, 1.0), answers(10.0, 5.0), answers(20.0, 9.0)]);
        assert_eq!(middle, answers(20.0, 5.0));
    }
}
