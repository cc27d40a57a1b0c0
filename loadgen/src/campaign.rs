//! A load as a whole: producers connect once, stretches of load follow one another, then the result is checked.
//!
//! What the views are is the workload's. Invariant: between two stretches nothing is unanswered, so the figures of each
//! are its own, while the books for the check go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_client::Producer;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::error::LoadError;
use crate::http::Shown;
use crate::oracle::VideoIds;
use crate::process::cpu::Meter;
use crate::progress::Progress;
use crate::report::{Outcome, Report};
use crate::send::{Start, Target, Workload, produce};
use crate::tally::Tally;
use crate::verify::{Verification, Verifier};

/// What all producers of a load share.
pub(crate) struct Load<W> {
    pub(crate) workload: Mutex<W>,
    pub(crate) batch_views: u32,
    /// Batches of one producer that may be unanswered, if the engine allows as many.
    pub(crate) in_flight_max: u16,
    tally: Mutex<Tally>,
    failure: Mutex<Option<LoadError>>,
    failed: AtomicBool,
    pub(crate) progress: Arc<Progress>,
}

impl<W> Load<W> {
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: LoadError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopping(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.progress.stopping()
    }

    fn settle(&self, producer: u16, fate: &highwater_client::Fate) {
        let settled = self.tally().settle(producer, fate);
        self.progress.acked(u64::from(fate.view_count));
        if let Err(error) = settled {
            self.fail(error);
        }
    }
}

/// Connected producers and the books of what they send. Runs a single-threaded runtime of its own: use it outside of
/// any.
pub(crate) struct Campaign<W> {
    load: Arc<Load<W>>,
    /// None is left of those that failed.
    producers: Vec<(u16, Producer)>,
    verifier: Option<Verifier>,
    start: Start,
    warm_up: Duration,
    /// CPU time of this process during the last stretch, as a share of the time it took.
    cpu_percent: f64,
    runtime: Runtime,
}

impl<W: Workload> Campaign<W> {
    /// Checks that the engine is empty where a comparison is asked for, and connects all producers.
    pub(crate) fn open(target: &Target, workload: W, progress: &Arc<Progress>) -> Result<Self, LoadError> {
        target.check()?;
        let shown = Shown {
            ca_pem: &target.client.ca_pem,
            token: &target.client.token,
            certificate: target.client.client_certificate.as_ref(),
        };
        let verifier = target.verify.as_deref().map(|url| Verifier::new(url, &shown)).transpose()?;
        if let Some(verifier) = &verifier {
            verifier.check_empty()?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| LoadError::Runtime(error.to_string()))?;
        let videos = workload.ids().video_count();
        let tally = Tally::new(target.producers, videos, workload.recurring(), verifier.is_some())?;
        let load = Arc::new(Load {
            workload: Mutex::new(workload),
            batch_views: target.batch_views,
            in_flight_max: target.client.in_flight_max,
            tally: Mutex::new(tally),
            failure: Mutex::new(None),
            failed: AtomicBool::new(false),
            progress: Arc::clone(progress),
        });
        let producers = runtime.block_on(connect(target, &load))?;
        let (start, warm_up) = (Start::now(), Duration::ZERO);
        Ok(Self { load, producers, verifier, start, warm_up, cpu_percent: 0.0, runtime })
    }

    /// The workload, between stretches.
    pub(crate) fn workload(&self) -> MutexGuard<'_, W> {
        self.load.workload.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The books, between stretches.
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.load.tally()
    }

    /// Lets the producers share out the workload until it ends, fails or is stopped, and waits for all answers. What is
    /// planned within `warm_up` is in no latency.
    pub(crate) fn stretch(&mut self, warm_up: Duration) -> Result<(), LoadError> {
        self.load.progress.plan(self.workload().views_planned());
        (self.start, self.warm_up) = (Start::now(), warm_up);
        self.tally().begin(self.start.instant + warm_up)?;
        let meter = Meter::start(std::process::id()).map_err(|error| LoadError::Runtime(format!("{error:#}")))?;
        let producers = std::mem::take(&mut self.producers);
        self.producers = self.runtime.block_on(share_out(&self.load, producers, self.start));
        self.cpu_percent = meter.percent().map_err(|error| LoadError::Runtime(format!("{error:#}")))?;
        Ok(())
    }

    /// What ended the load early.
    pub(crate) fn failed(&self) -> Option<String> {
        self.load.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(ToString::to_string)
    }

    /// CPU time of this process during the last stretch, in percent of one CPU.
    pub(crate) fn cpu_percent(&self) -> f64 {
        self.cpu_percent
    }

    /// Ends the producers, compares where asked to, and reports on the last stretch.
    pub(crate) fn conclude(mut self, shift_ms: i64) -> Outcome {
        for (_, producer) in std::mem::take(&mut self.producers) {
            if let Err(error) = self.runtime.block_on(producer.finish()) {
                self.load.fail(error.into());
            }
        }
        let mut failure = self.load.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (tally, workload) = (self.tally(), self.workload());
        let verification = match (&self.verifier, &tally.oracle, &failure) {
            (Some(verifier), Some(oracle), None) => {
                self.load.progress.verify();
                match verifier.compare(oracle, workload.ids(), tally.visible_epoch) {
                    Ok(verification) => Some(verification),
                    Err(error) => {
                        failure = Some(error);
                        Some(Verification::default())
                    }
                }
            }
            (Some(_), ..) => Some(Verification::default()),
            (None, ..) => None,
        };
        let mut report = Report::new(&tally, self.start, self.warm_up, self.cpu_percent);
        report.reconnects = self.load.progress.reconnects();
        report.shift_ms = shift_ms;
        report.failure = failure.as_ref().map(ToString::to_string);
        report.verified = verification.as_ref().map(|verification| verification.verified);
        report.verified_epoch = verification.as_ref().and_then(|verification| verification.epoch);
        let differences = verification.map(|verification| verification.differences).unwrap_or_default();
        Outcome { report, seconds: tally.figures.series.seconds(), differences, failure }
    }
}

async fn connect<W: Workload>(target: &Target, load: &Arc<Load<W>>) -> Result<Vec<(u16, Producer)>, LoadError> {
    let recurring = load.workload.lock().unwrap_or_else(PoisonError::into_inner).recurring();
    let mut producers = Vec::new();
    for index in 0..target.producers {
        let books = Arc::clone(load);
        let on_fate = move |fate| books.settle(index, &fate);
        let producer = Producer::connect(target.client.clone(), on_fate).await?;
        target.check_batch(&producer)?;
        if let Some(recurring) = &recurring {
            recurring.check_encodings(producer.welcome())?;
        }
        producers.push((index, producer));
    }
    Ok(producers)
}

/// Returns the producers that did not fail.
async fn share_out<W: Workload>(
    load: &Arc<Load<W>>,
    producers: Vec<(u16, Producer)>,
    start: Start,
) -> Vec<(u16, Producer)> {
    let mut tasks = JoinSet::new();
    for (index, mut producer) in producers {
        let load = Arc::clone(load);
        tasks.spawn(async move {
            match produce(&load, index, &mut producer, start).await {
                Ok(()) => Some((index, producer)),
                Err(error) => {
                    load.fail(error);
                    None
                }
            }
        });
    }
    let mut left = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(producer) => left.extend(producer),
            Err(error) => load.fail(LoadError::Runtime(error.to_string())),
        }
    }
    left.sort_unstable_by_key(|(index, _)| *index);
    left
}
