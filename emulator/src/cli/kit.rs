//! `sfnic kit`: the guest kit.

use std::path::PathBuf;

use sfnic_qemu::kit::DEFAULT_LINE;
use sfnic_qemu::{Kit, KitOptions};

use super::{Done, print, value};

/// Make, show or remove what guests need: QEMU, a kernel, tools.
///
/// The kit is made by itself when a guest is first run; it lives in
/// $XDG_CACHE_HOME/sfnic or ~/.cache/sfnic.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
#[command(disable_help_subcommand = true)]
enum What {
    /// Make what is missing (minutes the first time; an interrupted one goes on).
    Build {
        /// The line of kernels; its newest version is taken.
        #[arg(long, value_name = "LINE", default_value = DEFAULT_LINE, value_parser = value::line)]
        kernel: String,
        #[command(flatten)]
        place: Place,
    },
    /// Show what there is.
    Show {
        #[command(flatten)]
        place: Place,
    },
    /// Remove all of it.
    Clean {
        #[command(flatten)]
        place: Place,
    },
}

/// Where the kit is, and where it comes from.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// The kit's Debian mirror, instead of that of the machine's apt configuration.
    #[arg(long, value_name = "URL", value_parser = mirror)]
    mirror: Option<String>,

    /// The kit's directory, instead of $XDG_CACHE_HOME/sfnic or ~/.cache/sfnic.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

impl Place {
    pub(super) fn options(&self) -> KitOptions {
        KitOptions { cache_dir: self.cache.clone(), mirror: self.mirror.clone(), quiet: false }
    }
}

/// It becomes a word of apt's sources list.
fn mirror(text: &str) -> Result<String, String> {
    let schemes = ["http://", "https://", "file:/"];
    let good = schemes.iter().any(|s| text.len() > s.len() && text.starts_with(s))
        && text.bytes().all(|c| c.is_ascii_graphic() && !b"[]#\"".contains(&c));
    if good { Ok(text.to_owned()) } else { Err(format!("allowed is a URL with {}", schemes.join(", "))) }
}

pub(super) fn run(args: Args) -> Done {
    match args.what {
        What::Build { kernel, place } => {
            let kit = Kit::ensure(&place.options(), &kernel)?;
            print(&format!("the kit is in {}: kernel {}\n", kit.cache_dir().display(), kit.release()))?;
        }
        What::Show { place } => print(&Kit::show(&place.options())?)?,
        What::Clean { place } => Kit::clean(&place.options())?,
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_urls_in_one_word() {
        assert!(mirror("http://deb.example.org/debian").is_ok());
        for bad in ["", "http://", "example.org", "http://a b", "http://a/[x=y]", "ftp://a\n"] {
            assert!(mirror(bad).is_err(), "{bad:?}");
        }
    }
}
