//! Plots of one run: load, pools and scores over time, as SVG that needs no other program.

use std::{fmt::Write as _, path::Path};

use protocol::sim::Outcome;

pub(crate) const WIDTH: f64 = 900.0;
pub(crate) const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 48.0;

/// Lines that can still be told apart; of more the first are drawn.
const LINES_MAX: usize = 24;

/// One line: its name, and its points over seconds.
type Line = (String, Vec<(f64, f64)>);

/// Writes `NAME-SEED-{load,pools,scores}.svg`.
pub(crate) fn write(folder: &Path, name: &str, outcome: &Outcome) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let plots = [
        ("load", "sessions", load(outcome)),
        ("pools", "members that answer", pools(outcome)),
        ("scores", "score as nodes see it", scores(outcome)),
    ];
    for (plot, unit, lines) in plots {
        let path = folder.join(format!("{name}-{}-{plot}.svg", outcome.seed));
        let title = format!("{name}, seed {}: {unit}", outcome.seed);
        std::fs::write(&path, svg(&title, &lines)).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn load(outcome: &Outcome) -> Vec<Line> {
    let line = |(at, name): (usize, &String)| {
        let points = outcome.samples.iter().filter_map(|sample| {
            sample.sessions.get(at).copied().flatten().map(|sessions| (sample.at.as_secs_f64(), f64::from(sessions)))
        });
        (name.clone(), points.collect())
    };
    outcome.indexers.iter().enumerate().take(LINES_MAX).map(line).collect()
}

fn scores(outcome: &Outcome) -> Vec<Line> {
    let line = |(at, name): (usize, &String)| {
        let points = outcome.samples.iter().filter_map(|sample| {
            sample.scores.get(at).copied().flatten().map(|score| (sample.at.as_secs_f64(), score))
        });
        (name.clone(), points.collect())
    };
    outcome.indexers.iter().enumerate().take(LINES_MAX).map(line).collect()
}

fn pools(outcome: &Outcome) -> Vec<Line> {
    let line = |name: &str, of: fn((f64, f64, f64)) -> f64| {
        let points = outcome.samples.iter().map(|sample| (sample.at.as_secs_f64(), of(sample.pooled)));
        (name.to_owned(), points.collect())
    };
    vec![line("least", |(least, _, _)| least), line("mean", |(_, mean, _)| mean), line("most", |(_, _, most)| most)]
}

fn svg(title: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let last = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let top = points().map(|(_, y)| *y).fold(1.0, f64::max);
    let at = |x: f64, y: f64| {
        let across = MARGIN + x / last * (WIDTH - 2.0 * MARGIN);
        (across, HEIGHT - MARGIN - y / top * (HEIGHT - 2.0 * MARGIN))
    };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"20\" font-size=\"14\">{title}</text>\n"
    );
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let ((x, y), (left, bottom)) = (at(last * share, top * share), at(0.0, 0.0));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "<line x1=\"{left}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"4\" y=\"{y:.1}\">{:.1}</text><text x=\"{x:.1}\" y=\"{:.1}\">{:.0} s</text>",
            WIDTH - MARGIN,
            top * share,
            bottom + 16.0,
            last * share
        );
    }
    for (number, (name, points)) in lines.iter().enumerate() {
        let hue = 360 * number / lines.len().max(1);
        let path: Vec<String> = points.iter().map(|(x, y)| at(*x, *y)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            text,
            "<polyline fill=\"none\" stroke=\"hsl({hue},70%,40%)\" points=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{}\" fill=\"hsl({hue},70%,40%)\">{name}</text>",
            path.join(" "),
            WIDTH - MARGIN + 4.0,
            MARGIN + 11.0 * number as f64
        );
    }
    text.push_str("</svg>\n");
    text
}
