//! `sfnic list`: what is implemented.

use super::Done;
#[derive(Debug, clap::Args)]
pub(super) struct Args {}
pub(super) fn run(_: Args) -> Done {
    Ok(0)
}
