//! The page of a sweep: latency by rate, and rate and latency second by second, drawn as SVG in one HTML file.
//!
//! It loads nothing and runs no script, so that it can be kept and mailed. Invariant: every text that comes from
//! outside is escaped.

use std::fmt::Write;

use super::session::Stage;
use super::sweep::Sweep;
use crate::series::Second;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 280.0;
/// Left and below a plot, for the axes' words.
const MARGIN: f64 = 60.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}\
    svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:#57606a}\
    .axis{stroke:#8c959f}.limit{stroke:#cf222e;stroke-dasharray:4 4}.line{fill:none;stroke-width:2}\
    table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:right}\
    @media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}text{fill:#9198a1}}";

/// One line of a plot.
struct Line {
    name: &'static str,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

/// The whole page.
pub(super) fn html(sweep: &Sweep) -> String {
    let knee = sweep.knee_per_s.map_or("no rate was held".to_owned(), |knee| format!("knee at {knee} views/s"));
    let limit_ms = sweep.p99_max_us as f64 / 1000.0;
    let valid = sweep.stages.iter().filter(|stage| stage.generator.valid == Some(true));
    let by_rate = |name, colour, figure: fn(&Stage) -> u64| Line {
        name,
        colour,
        points: valid
            .clone()
            .map(|stage| (stage.planned_per_s.unwrap_or(0) as f64 / 1e6, figure(stage) as f64 / 1000.0))
            .collect(),
    };
    let latencies = [
        by_rate("p50", "#1a7f37", |stage| stage.ack_latency_us.p50),
        by_rate("p99", "#0969da", |stage| stage.ack_latency_us.p99),
        by_rate("p99.9", "#8250df", |stage| stage.ack_latency_us.p999),
        by_rate("p99.99", "#bf8700", |stage| stage.ack_latency_us.p9999),
    ];
    let seconds = in_time([&sweep.filling, &sweep.full].into_iter().chain(&sweep.stages));
    let by_second = |name, colour, figure: fn(&Second) -> f64| Line {
        name,
        colour,
        points: seconds.iter().map(|&(at_s, second)| (at_s, figure(second))).collect(),
    };
    let rates = [by_second("million views/s", "#0969da", |second| second.views as f64 / 1e6)];
    let over_time = [
        by_second("p50", "#1a7f37", |second| second.p50_us as f64 / 1000.0),
        by_second("p99", "#0969da", |second| second.p99_us as f64 / 1000.0),
        by_second("max", "#cf222e", |second| second.max_us as f64 / 1000.0),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Highwater: {knee}</title>\n<style>{STYLE}</style>\n<h1>{knee}</h1>\n\
         <p>{} on Linux {}, commit {}; {:.1} bytes per view, {} distinct videos, lists verified: {}.</p>\n\
         <p><code>{}</code></p>\n<h2>Acknowledgement by rate</h2>\n{}\n<h2>Second by second</h2>\n\
         <p>The engine is filled, loaded as fast as it answers, then at shares of that rate, then around the knee.</p>\n{}\n{}\n</html>\n",
        escape(&sweep.machine.cpu),
        escape(&sweep.kernel),
        escape(sweep.commit),
        sweep.full.bytes_per_view,
        sweep.distinct_videos,
        sweep.verified,
        escape(&sweep.command_line.join(" ")),
        plot("million views/s planned", "ms", &latencies, Some(limit_ms)),
        plot("s", "million views/s", &rates, None),
        plot("s", "ms", &over_time, Some(limit_ms)),
    )
}

/// The seconds of all stretches in the order of time, each with its time since the beginning of the first, in seconds.
fn in_time<'a>(stages: impl Iterator<Item = &'a Stage>) -> Vec<(f64, &'a Second)> {
    let of = |stage: &'a Stage| stage.seconds.iter().map(|second| (stage.began_s + second.second as f64, second));
    let mut seconds: Vec<(f64, &Second)> = stages.flat_map(of).collect();
    seconds.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    seconds
}

/// A plot with a line for each figure. What is beyond ten times its limit is cut off, so that the rest can be read.
fn plot(across: &str, up: &str, lines: &[Line], limit: Option<f64>) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = points().map(|point| point.1).fold(limit.unwrap_or(0.0) * 1.2, f64::max).max(1e-9);
    let y_max = limit.map_or(most * 1.1, |limit| most.min(limit * 10.0));
    let x_max = points().map(|point| point.0).fold(0.0, f64::max).max(1e-9);
    let x = |value: f64| MARGIN + value / x_max * (WIDTH - MARGIN - 10.0);
    let y = |value: f64| 10.0 + (1.0 - value.min(y_max) / y_max) * (HEIGHT - MARGIN);
    let (left, bottom) = (x(0.0), y(0.0));
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{up} by {across}\">\n");
    // Writing to a string cannot fail.
    let mut put = |text: std::fmt::Arguments<'_>| svg.write_fmt(text).expect("a string takes it");
    put(format_args!("<path class=\"axis line\" d=\"M{left} 10V{bottom}H{}\"/>\n", WIDTH - 10.0));
    for step in 0..=4 {
        let (along, high) = (x_max * f64::from(step) / 4.0, y_max * f64::from(step) / 4.0);
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            x(along),
            bottom + 16.0,
            tidy(along)
        ));
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            left - 6.0,
            y(high) + 4.0,
            tidy(high)
        ));
    }
    put(format_args!("<text x=\"{left}\" y=\"{:.1}\">{across}; up: {up}</text>\n", HEIGHT - 8.0));
    if let Some(limit) = limit {
        put(format_args!("<path class=\"limit line\" d=\"M{left} {0:.1}H{1}\"/>\n", y(limit), WIDTH - 10.0));
    }
    for (line, number) in lines.iter().zip(0_u32..) {
        let path: Vec<String> =
            line.points.iter().map(|point| format!("{:.1} {:.1}", x(point.0), y(point.1))).collect();
        put(format_args!("<path class=\"line\" stroke=\"{}\" d=\"M{}\"/>\n", line.colour, path.join("L")));
        let at = left + 20.0 + 110.0 * f64::from(number);
        put(format_args!("<text x=\"{at}\" y=\"20\" style=\"fill:{}\">{}</text>\n", line.colour, line.name));
    }
    svg + "</svg>"
}

/// A number with as many digits as an axis needs.
fn tidy(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::session::tests::stage;

    /// Stages are kept in the order of their rates: drawn like that, the time axis went back and forth.
    #[test]
    fn time_goes_on_where_rates_do_not() {
        let mut high = stage(20.5, Some(1000), Some(true));
        high.seconds = vec![Second { second: 0, ..high.seconds[0] }, Second { second: 2, ..high.seconds[0] }];
        let stages = [stage(30.0, Some(500), Some(true)), stage(10.0, Some(800), Some(false)), high];
        let times: Vec<f64> = in_time(stages.iter()).iter().map(|(at_s, _)| *at_s).collect();
        assert_eq!(times, [10.0, 20.5, 22.5, 30.0]);
    }

    #[test]
    fn lines_stay_within_the_plot_and_texts_are_escaped() {
        let line = Line { name: "p99", colour: "#000", points: vec![(0.0, 1.0), (2.0, 5000.0)] };
        let svg = plot("rate", "ms", &[line], Some(10.0));
        assert!(svg.contains("d=\"M60.0") && svg.contains("L850.0 10.0"), "{svg}");
        assert_eq!(svg.matches("<path").count(), 3);
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
        assert!(plot("rate", "ms", &[], None).ends_with("</svg>"), "nothing to draw");
    }
}
