//! Progress on stderr: a bar per stage on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where the stages of the kit tell how far they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    quiet: bool,
}

/// One stage under way.
#[derive(Debug)]
pub(crate) struct Step {
    title: String,
    started: Instant,
    quiet: bool,
    bar: Option<ProgressBar>,
    /// The last line of a long stage where there is no bar.
    told: Mutex<Instant>,
}

/// How often a long stage tells how far it is where there is no bar.
const TELL_EVERY: Duration = Duration::from_secs(30);

impl Progress {
    /// Says nothing at all if `quiet`.
    pub(crate) fn new(quiet: bool) -> Progress {
        Progress { quiet }
    }

    /// A line that belongs to no stage.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("sfnic: {text}");
        }
    }

    /// Starts a stage.
    pub(crate) fn step(&self, title: impl Into<String>) -> Step {
        let title = title.into();
        let bar = (!self.quiet && std::io::stderr().is_terminal()).then(|| bar(&title));
        if bar.is_none() && !self.quiet {
            eprintln!("sfnic: kit: {title} ...");
        }
        let now = Instant::now();
        Step { title, started: now, quiet: self.quiet, bar, told: Mutex::new(now) }
    }
}

fn bar(title: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("sfnic: kit: {msg:36!} [{bar:24}] {percent:>3}% {elapsed}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(title.to_string());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

impl Step {
    /// `done` of `total` parts are finished.
    pub(crate) fn at(&self, done: f64, total: f64) {
        if total <= 0.0 {
            return;
        }
        let share = (done / total).clamp(0.0, 1.0);
        if let Some(bar) = &self.bar {
            bar.set_position((share * 1000.0) as u64);
        } else if let (false, Ok(mut told)) = (self.quiet, self.told.lock())
            && told.elapsed() > TELL_EVERY
        {
            eprintln!("sfnic: kit: {} {:.0} %", self.title, share * 100.0);
            *told = Instant::now();
        }
    }

    /// The stage is complete.
    pub(crate) fn done(self) {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !self.quiet {
            eprintln!("sfnic: kit: {} done in {seconds:.1} s", self.title);
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
