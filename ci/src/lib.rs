//! The guest tests as data, and what becomes of their results. No device and no guest is
//! needed here: the runner is the lab of the emulator.
//!
//! * [`suite`]: what there is to run, from `suites.toml`, and the scripts in [`scripts`].
//! * [`evidence`]: what a guest left, and everything that is wrong with it; [`kernel_log`]
//!   judges what the kernel said.
//! * [`matrix`]: results, kernel by suite.
//! * [`report`]: results as JUnit, TAP, Markdown, JSON and a table for a terminal.

pub mod check;
pub mod evidence;
pub mod kernel_log;
pub mod matrix;
pub mod report;
pub mod scripts;
pub mod suite;

pub use check::{Check, Verdict};
pub use evidence::Evidence;
pub use matrix::{Cell, Column, Matrix, Status};
pub use suite::{Suite, suites};
