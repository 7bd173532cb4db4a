//! `sfnic kit`: the guest kit.

use std::path::PathBuf;

use sfnic_qemu::kit::DEFAULT_LINE;
use sfnic_qemu::{Kit, KitOptions};

use super::{Done, complain, print, value};

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
        /// A line of kernels (repeatable); its newest version is taken.
        #[arg(long, value_name = "LINE", default_value = DEFAULT_LINE, value_parser = value::line)]
        kernel: Vec<String>,
        /// All lines: hours, if none is there.
        #[arg(long, conflicts_with = "kernel")]
        all: bool,
        #[command(flatten)]
        with: With,
        #[command(flatten)]
        place: Place,
    },
    /// Show which kernel lines there are, and what is made.
    Show {
        #[command(flatten)]
        place: Place,
    },
    /// Remove all of it, or some kernels; what a guest uses stays.
    Clean {
        /// Only this line of kernels (repeatable).
        #[arg(long, value_name = "LINE", value_parser = value::line)]
        kernel: Vec<String>,
        #[command(flatten)]
        place: Place,
    },
}

/// What the guest has besides.
#[derive(Debug, clap::Args)]
pub(super) struct With {
    /// Debian packages that the guest has besides the usual ones (by name; repeatable).
    #[arg(long, value_name = "PACKAGE,...", value_delimiter = ',', value_parser = package)]
    with: Vec<String>,
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
        KitOptions { cache_dir: self.cache.clone(), mirror: self.mirror.clone(), ..KitOptions::default() }
    }

    /// With further packages in the guest.
    pub(super) fn options_with(&self, with: &With) -> KitOptions {
        KitOptions { with: with.with.clone(), ..self.options() }
    }
}

/// It becomes a word of apt's sources list.
fn mirror(text: &str) -> Result<String, String> {
    let schemes = ["http://", "https://", "file:/"];
    let good = schemes.iter().any(|s| text.len() > s.len() && text.starts_with(s))
        && text.bytes().all(|c| c.is_ascii_graphic() && !b"[]#\"".contains(&c));
    if good { Ok(text.to_owned()) } else { Err(format!("allowed is a URL with {}", schemes.join(", "))) }
}

/// Debian policy 5.6.7; it becomes a word of apt's command line.
fn package(text: &str) -> Result<String, String> {
    let good = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.len() > 1
        && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"+-.".contains(&c))
        && !text.ends_with(['+', '-']) | text.ends_with("++");
    if good { Ok(text.to_owned()) } else { Err("allowed are names of Debian packages: a-z, 0-9, '+', '-', '.'".into()) }
}

pub(super) fn run(args: Args) -> Done {
    match args.what {
        What::Build { kernel, all, with, place } => {
            let lines: Vec<&str> =
                if all { Kit::lines().collect() } else { kernel.iter().map(String::as_str).collect() };
            for line in lines {
                let kit = Kit::ensure(&place.options_with(&with), line)?;
                print(&format!("the kit is in {}: kernel {}\n", kit.cache_dir().display(), kit.release()))?;
            }
        }
        What::Show { place } => print(&Kit::show(&place.options())?)?,
        What::Clean { kernel, place } => {
            for dir in Kit::clean(&place.options(), &kernel)? {
                complain(&format!("{} stays: a guest uses it", dir.display()));
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_names() {
        for good in ["udev", "libstdc++6", "python3.13", "g++", "0ad"] {
            assert!(package(good).is_ok(), "{good:?}");
        }
        for bad in ["", "a", "Udev", "-y", "udev=1", "udev/sid", "a b", "udev-", "vim+", "./x.deb", "a*"] {
            assert!(package(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mirrors_are_urls_in_one_word() {
        assert!(mirror("http://deb.example.org/debian").is_ok());
        for bad in ["", "http://", "example.org", "http://a b", "http://a/[x=y]", "ftp://a\n"] {
            assert!(mirror(bad).is_err(), "{bad:?}");
        }
    }
}
