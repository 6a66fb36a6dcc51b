//! The figures of a run: medians and ratios, as Markdown, as JSON and as a chart.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::calls::{BESIDE, Calls, Spread};
use super::project::Project;
use super::ways::{Library, Run, Way};
use crate::cli::chart;
use crate::model::Evaluation;
use crate::pyright::install::Engine;

const SHARED: Way = Way::Service { evaluation: Evaluation::Shared, documentation: false };
const ISOLATED: Way = Way::Service { evaluation: Evaluation::Isolated, documentation: false };
const DOCUMENTED: Way = Way::Service { evaluation: Evaluation::Isolated, documentation: true };

/// What was measured, where, and how it came out.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    #[serde(flatten)]
    machine: Machine,
    rounds: usize,
    in_flight: usize,
    projects: Vec<ProjectFigures>,
    /// In the last of the projects.
    calls: Vec<CallFigures>,
}

/// What was measured, and on what.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pyrightd: &'static str,
    /// Pyright and Node.
    engine: String,
    cores: usize,
    processor: String,
}

impl Machine {
    /// This one, with this engine.
    pub(super) fn this(engine: &Engine) -> Self {
        Self {
            pyrightd: env!("CARGO_PKG_VERSION"),
            engine: engine.version.clone(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            processor: processor().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pyrightd, engine, cores, processor } = self;
        let build = if cfg!(debug_assertions) { " (a debug build)" } else { "" };
        write!(formatter, "pyrightd {pyrightd}{build}, {engine}; {cores} cores, {processor}")
    }
}

/// One project, all ways.
#[derive(Debug, Serialize)]
struct ProjectFigures {
    project: String,
    files: usize,
    names: usize,
    ways: Vec<WayFigures>,
    ratios: Vec<Ratio>,
}

/// One project, one way: medians of all rounds.
#[derive(Debug, Serialize)]
struct WayFigures {
    #[serde(serialize_with = "in_words")]
    way: Way,
    /// Ready but cold.
    ready_seconds: Option<f64>,
    /// With the start of the processes.
    whole_seconds: f64,
    /// As ready but cold where there is such a moment.
    microseconds_per_name: f64,
    /// Names of which something was told.
    told: Option<u64>,
    /// The highest of all rounds.
    peak_resident_bytes: Option<u64>,
}

/// How many times as long one way takes as another.
#[derive(Debug, Serialize)]
struct Ratio {
    #[serde(serialize_with = "in_words")]
    way: Way,
    #[serde(serialize_with = "in_words")]
    to: Way,
    /// Whether the start of the processes is in both.
    with_start: bool,
    times: f64,
}

/// One kind of call: medians of all rounds, in milliseconds.
#[derive(Debug, Serialize)]
struct CallFigures {
    call: String,
    #[serde(flatten)]
    spread: Spread,
}

impl Figures {
    /// Of these runs, by project, way and round, and of the calls of each round.
    pub(super) fn new(
        engine: &Engine,
        in_flight: usize,
        projects: &[Arc<Project>],
        ways: &[Way],
        runs: &[Vec<Vec<Run>>],
        calls: &[Calls],
    ) -> Self {
        Self {
            machine: Machine::this(engine),
            rounds: calls.len(),
            in_flight,
            projects: projects
                .iter()
                .zip(runs)
                .map(|(project, runs)| of_project(project, ways, runs, in_flight))
                .collect(),
            calls: of_calls(calls),
        }
    }

    /// As tables and lists for people.
    pub(super) fn markdown(&self) -> String {
        let Self { machine, rounds, projects, calls, .. } = self;
        let mut text = format!("{machine}; medians of {rounds} round{}\n", if *rounds == 1 { "" } else { "s" });
        for project in projects {
            project.write(&mut text);
        }
        if let Some(project) = projects.last() {
            let _ = writeln!(text, "\n## Calls to a warm process, {}\n", project.project);
        }
        for CallFigures { call, spread: Spread { calls, p50, p95, p99 } } in calls {
            let _ = writeln!(text, "- {call}: p50 {p50:.2} ms, p95 {p95:.2} ms, p99 {p99:.2} ms ({calls} calls)");
        }
        if let [small, .., large] = projects.as_slice() {
            let _ = writeln!(text, "\n## Time per name, {} to {}\n", large.project, small.project);
            for (large, small) in large.ways.iter().zip(&small.ways) {
                let _ =
                    writeln!(text, "- {}: {:.2}", large.way, large.microseconds_per_name / small.microseconds_per_name);
            }
        }
        text.push_str(COUNTED);
        text
    }

    /// As an SVG document.
    pub(super) fn chart(&self) -> String {
        let names: Vec<String> = self
            .projects
            .first()
            .map(|project| project.ways.iter().map(|way| way.way.to_string()).collect())
            .unwrap_or_default();
        let series: Vec<&str> = names.iter().map(String::as_str).collect();
        let groups: Vec<chart::Group> = self
            .projects
            .iter()
            .map(|project| (project.project.clone(), project.ways.iter().map(|way| way.whole_seconds).collect()))
            .collect();
        let title = format!("Seconds for every name, the processes' start included ({})", self.machine.engine);
        chart::bars(&title, "s", &series, &groups)
    }
}

/// What the figures are of; part of the output, so that they are not quoted for more.
const COUNTED: &str = "
## What is counted

- Every identifier of a project, each figure from processes of its own. \"Ready but cold\" begins when Pyright has found
  the project's files and has evaluated none; \"with start\" begins with the first process, for pyrightd the service's own.
- Hovers are a plain language client's: each file is open while it is asked about. Its Pyright runs on the same Node with
  the same flags as the service's, and reads the sources of a Python's standard library for documentation, as in an editor;
  with a \"blank library\" it finds empty ones, as the service's does. The former are measured in the first round alone.
- pyright's check is the `pyright` command's over the same files: as it comes, with Node's own defaults. It sees the same
  packages as the service.
- pyrightd is one call for the whole project, answered over loopback to a client in another process. Its memory is the
  Rust process's at its highest; Pyright is a process beside it.
- Calls are made one after the other, in isolated evaluation.
";

impl ProjectFigures {
    fn write(&self, text: &mut String) {
        let Self { project, files, names, ways, ratios } = self;
        let _ = writeln!(text, "\n## {project}: {files} files, {names} names\n");
        text.push_str("| | ready but cold | with start | per name | names told of | memory of pyrightd |\n");
        text.push_str("|---|---:|---:|---:|---:|---:|\n");
        for figures in ways {
            let ready = figures.ready_seconds.map(|seconds| format!("{seconds:.2} s")).unwrap_or_default();
            let told = figures.told.map(|told| told.to_string()).unwrap_or_default();
            let peak = figures.peak_resident_bytes.map(|bytes| format!("{} MiB", bytes >> 20)).unwrap_or_default();
            let WayFigures { way, whole_seconds, microseconds_per_name, .. } = figures;
            let _ = writeln!(
                text,
                "| {way} | {ready} | {whole_seconds:.2} s | {microseconds_per_name:.0} µs | {told} | {peak} |"
            );
        }
        text.push('\n');
        for Ratio { way, to, with_start, times } in ratios {
            let counted = if *with_start { "with start" } else { "ready but cold" };
            let _ = writeln!(text, "- {way} / {to}: {times:.2} ({counted})");
        }
    }
}

fn of_project(project: &Project, ways: &[Way], runs: &[Vec<Run>], in_flight: usize) -> ProjectFigures {
    let names = project.names();
    let ways: Vec<WayFigures> = ways.iter().zip(runs).map(|(way, runs)| of_way(*way, runs, names)).collect();
    let compare = |way: Way, to: Way, with_start: bool| {
        let seconds = |way: Way| {
            let figures = ways.iter().find(|figures| figures.way == way)?;
            if with_start { Some(figures.whole_seconds) } else { figures.ready_seconds }
        };
        Some(Ratio { way, to, with_start, times: seconds(way)? / seconds(to)? })
    };
    let hovers = [Library::Sources, Library::Blank]
        .into_iter()
        .flat_map(|library| [1, in_flight].map(|in_flight| Way::Hovers { in_flight, library }))
        .flat_map(|hovers| [compare(hovers, ISOLATED, false), compare(hovers, SHARED, false)]);
    let others = [
        // A check's time has its start in it.
        compare(SHARED, Way::Check, true),
        compare(ISOLATED, Way::Check, true),
        compare(DOCUMENTED, ISOLATED, false),
    ];
    let ratios = hovers.chain(others).flatten().collect();
    ProjectFigures { project: project.name.clone(), files: project.files.len(), names, ways, ratios }
}

fn of_way(way: Way, runs: &[Run], names: usize) -> WayFigures {
    let whole_seconds = median(runs.iter().map(|run| run.whole.as_secs_f64()).collect()).unwrap_or_default();
    let ready_seconds = median(runs.iter().filter_map(|run| run.ready).map(|ready| ready.as_secs_f64()).collect());
    WayFigures {
        way,
        ready_seconds,
        whole_seconds,
        microseconds_per_name: ready_seconds.unwrap_or(whole_seconds) * 1e6
            / f64::from(u32::try_from(names).unwrap_or(u32::MAX)),
        told: runs.last().and_then(|run| run.told),
        peak_resident_bytes: runs.iter().filter_map(|run| run.peak_bytes).max(),
    }
}

fn of_calls(rounds: &[Calls]) -> Vec<CallFigures> {
    let names = rounds.first().map_or(0, |calls| calls.names);
    let figures = |call: String, spread: fn(&Calls) -> Option<Spread>| {
        let spreads: Vec<Spread> = rounds.iter().filter_map(spread).collect();
        let part = |part: fn(&Spread) -> f64| median(spreads.iter().map(part).collect());
        let spread = Spread {
            calls: spreads.iter().map(|spread| spread.calls).sum(),
            p50: part(|spread| spread.p50)?,
            p95: part(|spread| spread.p95)?,
            p99: part(|spread| spread.p99)?,
        };
        Some(CallFigures { call, spread })
    };
    let kinds = [
        figures(format!("an unchanged file of {names} names, exported again"), |calls| calls.again),
        figures("one location in that file".into(), |calls| calls.single),
        figures("the first location in a file that is not evaluated yet".into(), |calls| calls.first),
        figures(
            format!("{BESIDE} locations in the evaluated file, while the whole project is exported for another caller"),
            |calls| calls.beside,
        ),
        figures("a call that needs nothing of the engine".into(), |calls| calls.empty),
    ];
    kinds.into_iter().flatten().collect()
}

/// The value in the middle, or the mean of both.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// What the machine calls its processor.
fn processor() -> Option<String> {
    let told = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = told.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn in_words<S: Serializer>(way: &Way, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 9.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 1.0, 9.0, 2.0]), Some(3.0));
    }
}
