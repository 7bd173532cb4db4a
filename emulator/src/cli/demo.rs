//! `sfnic demo`: the story of a sub-function, told by a guest.

use std::time::Duration;

use sfnic_device_model::nic::Nic;
use sfnic_qemu::kit::DEFAULT_LINE;
use sfnic_qemu::{Guest, Kit, What};

use super::device::Watch;
use super::{Done, colours, kit, print, value, vm};
use crate::config::Config;

/// The story, for the guest's shell.
const STORY: &str = include_str!("../../demo/story.sh");
/// The story takes less than a minute; on a slow and busy machine some more.
const LONGEST: Duration = Duration::from_secs(600);

/// Show what it does: an unmodified driver, a sub-function, and traffic.
///
/// Boots a guest, tells each step and shows what the kernel answered. Status 0, or 1 if a
/// step fails.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The kernel: the newest of a line.
    #[arg(long, value_name = "LINE", default_value = DEFAULT_LINE, value_parser = value::line)]
    kernel: String,

    #[command(flatten)]
    kit: kit::Place,
}

pub(super) fn run(args: Args) -> Done {
    let kit = Kit::ensure(&args.kit.options(), &args.kernel)?;
    print("▶ A guest boots with two functions of a NIC that is this program; a cable joins their ports.\n")?;
    let story = ["sh", "-c", STORY].map(std::ffi::OsString::from);
    let colour = if colours(&std::io::stdout()) { "1" } else { "" };
    let guest = Guest {
        what: What::Command(story.to_vec()),
        env: vec![("STORY_COLOUR".to_owned(), colour.to_owned())],
        timeout: Some(LONGEST),
        ..Guest::default()
    };
    let watch = Watch { strict: false, explain: None, explain_count: 0, trace: None, capture: vec![] };
    let ran = vm::boot(&kit, Config::default(), guest, &super::device::Control::default(), &watch)?;
    let status = u8::from(ran.status != 0);
    let told = if status == 0 { "The whole story was told" } else { "The story broke off" };
    print(&format!("\n{told} in {:.0} s. {}\n", ran.elapsed.as_secs_f64(), Summary::of(&ran.nic)))?;
    watch.report(&ran.nic, status);
    Ok(status)
}

/// What the device did, in numbers.
struct Summary {
    commands: u64,
    refused: u64,
    frames: u64,
    bytes: u64,
    sfs: u64,
}

impl Summary {
    fn of(nic: &Nic) -> Summary {
        let mut sum = Summary { commands: 0, refused: 0, frames: 0, bytes: 0, sfs: 0 };
        for card in &nic.cards {
            let control = card.control.lock();
            for f in control.functions.values() {
                sum.commands += f.stats.executed;
                sum.refused += f.stats.refused;
            }
            sum.sfs += control.sfs.iter().map(|s| u64::from(s.generation)).sum::<u64>();
            sum.frames += card.port.tx.packets();
            sum.bytes += card.port.tx.octets();
        }
        sum
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "The device executed {} commands of the physical functions' drivers ({} refused), carried {} frames \
             ({:.1} MB) over the cable and made {} sub-functions.",
            self.commands,
            self.refused,
            self.frames,
            self.bytes as f64 / 1e6,
            self.sfs
        )
    }
}
