//! What is going on, on standard error: a moving line on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::text::{clean, clean_line};

/// How often the line moves while nothing happens.
const TICK: Duration = Duration::from_millis(120);

/// What is shown while something takes its time.
#[derive(Debug)]
pub(crate) struct Progress {
    /// `None`: not a terminal.
    bar: Option<ProgressBar>,
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    // a template that the library refuses would be a mistake here; its own one does as well
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl Progress {
    /// Stages, one after the other.
    pub(crate) fn stages() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = styled(ProgressBar::new_spinner(), "{spinner} {wide_msg} {elapsed}");
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar }
    }

    /// Bytes that pass by, of `length` if that is known.
    pub(crate) fn bytes(what: &'static str, length: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = match length {
                Some(length) => styled(
                    ProgressBar::new(length),
                    "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}",
                ),
                None => styled(
                    ProgressBar::new_spinner(),
                    "{spinner} {msg} {binary_bytes}, {binary_bytes_per_sec}",
                ),
            };
            bar.with_message(what)
        });
        Self { bar }
    }

    /// To be told the position.
    pub(crate) fn follower(&self) -> impl FnMut(u64) + Send + 'static {
        let bar = self.bar.clone();
        move |position| {
            if let Some(bar) = &bar {
                bar.set_position(position);
            }
        }
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{}", clean(text))),
            None => eprintln!("{}", clean(text)),
        }
    }

    /// What the moving line says from now on; nothing elsewhere.
    pub(crate) fn now(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(clean_line(text));
        }
    }

    /// The moving line goes while something else is printed.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// The moving line is gone for good.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
