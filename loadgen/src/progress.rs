//! How far a load has come, for whoever watches: a bar on stderr, or the engine's demo.
//!
//! It decides nothing but the wish to stop. Invariant: every figure only grows (single relaxed counters; a reader may
//! see one of them slightly before another).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// Live figures of one load.
#[derive(Debug, Default)]
pub struct Progress {
    views_planned: AtomicU64,
    views_sent: AtomicU64,
    views_acked: AtomicU64,
    reconnects: AtomicU64,
    verifying: AtomicBool,
    stop: AtomicBool,
}

impl Progress {
    /// Figures at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Asks the load to send nothing more; what is in flight is still waited for and reported.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether [`Progress::stop`] was called.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Views to be sent in all; 0 where only time ends the load.
    #[must_use]
    pub fn views_planned(&self) -> u64 {
        self.views_planned.load(Ordering::Relaxed)
    }

    /// Views handed to producers so far.
    #[must_use]
    pub fn views_sent(&self) -> u64 {
        self.views_sent.load(Ordering::Relaxed)
    }

    /// Views the engine has answered for so far: counted, duplicate or refused.
    #[must_use]
    pub fn views_acked(&self) -> u64 {
        self.views_acked.load(Ordering::Relaxed)
    }

    /// Lost connections replaced so far.
    #[must_use]
    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    pub(crate) fn plan(&self, views: u64) {
        self.views_planned.store(views, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, views: u64) {
        self.views_sent.fetch_add(views, Ordering::Relaxed);
    }

    pub(crate) fn acked(&self, views: u64) {
        self.views_acked.fetch_add(views, Ordering::Relaxed);
    }

    pub(crate) fn reconnected(&self, times: u64) {
        self.reconnects.fetch_add(times, Ordering::Relaxed);
    }

    pub(crate) fn verify(&self) {
        self.verifying.store(true, Ordering::Relaxed);
    }
}

/// A progress bar on stderr, redrawn by a thread of its own until dropped. Nothing is drawn where stderr is no
/// terminal.
#[derive(Debug)]
pub struct ProgressView {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ProgressView {
    /// Starts drawing.
    #[must_use]
    pub fn start(progress: Arc<Progress>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen_over = Arc::clone(&over);
        let thread = std::thread::spawn(move || draw(&progress, &seen_over));
        Self { over, thread: Some(thread) }
    }
}

impl Drop for ProgressView {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A bar that panicked has nothing more to draw; the load's result does not depend on it.
            let _drawn = thread.join();
        }
    }
}

fn draw(progress: &Progress, over: &AtomicBool) {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = |text: &str| ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style("{elapsed_precise} {pos} views acknowledged, {per_sec} {msg}"));
    while !over.load(Ordering::Relaxed) {
        let planned = progress.views_planned();
        if planned > 0 && bar.length().is_none() {
            bar.set_length(planned);
            bar.set_style(style("{elapsed_precise} {bar:32} {human_pos}/{human_len} views, {per_sec} {msg}"));
        }
        bar.set_position(progress.views_acked());
        let unanswered = progress.views_sent().saturating_sub(progress.views_acked());
        bar.set_message(if progress.verifying.load(Ordering::Relaxed) {
            "verifying".to_owned()
        } else {
            format!("({} unanswered, {} reconnects)", HumanCount(unanswered), progress.reconnects())
        });
        std::thread::park_timeout(REDRAW_EVERY);
    }
    bar.finish_and_clear();
}
