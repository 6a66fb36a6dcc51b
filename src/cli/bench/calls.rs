//! How long single calls take in a warm process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::project::{File, Project};
use super::service::{Caller, Launch, Service};
use crate::model::Evaluation;
use crate::proto;

/// About how many names the file has that is asked about again.
const NAMES: usize = 500;
/// Calls for all of that file.
const WHOLE: usize = 200;
/// Calls for one location in it.
const SINGLE: usize = 2000;
/// Calls that need nothing of the engine.
const EMPTY: usize = 500;
/// Locations in each call beside an export.
pub(super) const BESIDE: usize = 20;
/// These calls come at this pace, so as not to be the load themselves.
const PACE: Duration = Duration::from_millis(20);

/// How long calls of each kind took, in isolated evaluation; none where the project is too small for one.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    /// How many names the file has that is asked about again.
    pub(super) names: usize,
    /// All of that file, evaluated before and not changed.
    pub(super) again: Option<Spread>,
    /// One of its locations.
    pub(super) single: Option<Spread>,
    /// The first location of each other file, none of them evaluated before.
    pub(super) first: Option<Spread>,
    /// Some locations of the file, while the whole project is exported for another caller.
    pub(super) beside: Option<Spread>,
    /// A place outside the file: all of a call but the engine's work.
    pub(super) empty: Option<Spread>,
}

/// A summary of times, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Spread {
    pub(super) calls: usize,
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
}

impl Spread {
    /// None of no times.
    pub(super) fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort();
        let last = times.len().checked_sub(1)?;
        let part = |percent: usize| times[(times.len() * percent / 100).min(last)].as_secs_f64() * 1e3;
        Some(Self { calls: times.len(), p50: part(50), p95: part(95), p99: part(99) })
    }
}

impl Calls {
    /// Measures them in one service, and those beside an export in another, where there is all of it left to do.
    pub(super) async fn measure(launch: &Launch, project: &Arc<Project>) -> anyhow::Result<Self> {
        let known = project.file_of(NAMES)?;
        let service = Service::start(launch, Evaluation::Isolated).await?;
        let mut asking = Timed { caller: service.connect().await?, project };
        asking.caller.open(project).await?;
        asking.call(known.all()).await?;
        let others = project.shuffled().into_iter().filter(|file| file.relative != known.relative);
        let first = asking.calls(others.map(|file| file.locations(1, 0))).await?;
        // After so many others, it may have been dropped.
        asking.call(known.all()).await?;
        let again = asking.calls((0..WHOLE).map(|_| known.all())).await?;
        let single = asking.calls((0..SINGLE).map(|index| known.locations(1, index))).await?;
        let outside = proto::Position { line: u32::MAX, character: 0 };
        let nothing = proto::FileLocations { locations: vec![outside], ..known.locations(0, 0) };
        let empty = asking.calls((0..EMPTY).map(|_| nothing.clone())).await?;
        drop(asking);
        service.stop().await?;

        let service = Service::start(launch, Evaluation::Isolated).await?;
        let beside = beside(&service, project, known).await?;
        service.stop().await?;
        Ok(Self {
            names: known.names.len(),
            again: Spread::of(again),
            single: Spread::of(single),
            first: Spread::of(first),
            beside: Spread::of(beside),
            empty: Spread::of(empty),
        })
    }
}

/// Times of calls from now and then, for as long as an export by another connection takes.
async fn beside(service: &Service, project: &Arc<Project>, known: &File) -> anyhow::Result<Vec<Duration>> {
    let mut asking = Timed { caller: service.connect().await?, project };
    asking.caller.open(project).await?;
    asking.call(known.all()).await?;
    let (mut other, whole) = (service.connect().await?, Arc::clone(project));
    let mut export = JoinSet::new();
    export.spawn(async move { other.export(&whole, false).await });
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut times = Vec::new();
    loop {
        tokio::select! {
            Some(exported) = export.join_next() => {
                exported??;
                return Ok(times);
            }
            _ = pace.tick() => times.push(asking.call(known.locations(BESIDE, times.len())).await?),
        }
    }
}

/// A caller with a watch.
struct Timed<'a> {
    caller: Caller,
    project: &'a Project,
}

impl Timed<'_> {
    async fn call(&mut self, file: proto::FileLocations) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        self.caller.file(self.project, file).await?;
        Ok(begun.elapsed())
    }

    async fn calls(&mut self, files: impl Iterator<Item = proto::FileLocations>) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::new();
        for file in files {
            times.push(self.call(file).await?);
        }
        Ok(times)
    }
}
