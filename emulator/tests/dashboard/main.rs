//! The dashboard: its files, and how they behave in a browser.

mod browser;
mod clicks;
mod guest;
mod page;
mod stage;
