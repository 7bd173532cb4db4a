//! Values of flags: what is allowed is said where one is refused.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sfnic_qemu::Kit;

use crate::capture::Spec;

/// A number in a range.
fn number<T: FromStr + PartialOrd + Display>(text: &str, low: T, high: T) -> Result<T, String> {
    let fits = text.parse().ok().filter(|n| (&low..=&high).contains(&n));
    fits.ok_or_else(|| format!("allowed is {low} to {high}"))
}

/// CPUs of a guest.
pub(super) fn cpus(text: &str) -> Result<u32, String> {
    number(text, 1, 64)
}

/// Guests at a time.
pub(super) fn jobs(text: &str) -> Result<usize, String> {
    number(text, 1, 64)
}

/// How many frames are explained.
pub(super) fn count(text: &str) -> Result<u32, String> {
    number(text, 1, 1_000_000)
}

/// A time in seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    number(text, 1, 1_000_000)
}

/// A capture.
pub(super) fn capture(text: &str) -> Result<Spec, String> {
    text.parse().map_err(|e: crate::capture::SpecError| e.to_string())
}

/// Memory of a guest: a number of mebibytes or gibibytes, as QEMU takes it.
pub(super) fn memory(text: &str) -> Result<String, String> {
    let (digits, unit) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(""), 1),
    };
    let size = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    let fits = size.filter(|n| digits.bytes().all(|c| c.is_ascii_digit()) && (256..=1 << 20).contains(n));
    fits.map(|n| format!("{n}M")).ok_or_else(|| "allowed is 256M to 1024G, such as 2G".to_owned())
}

/// A kernel of the kit.
pub(super) fn line(text: &str) -> Result<String, String> {
    let known: Vec<&str> = Kit::lines().collect();
    if known.contains(&text) { Ok(text.to_owned()) } else { Err(format!("allowed is {}", known.join(", "))) }
}

/// Which kernel a guest boots.
#[derive(Debug, Clone)]
pub(super) enum Kernel {
    /// The newest of a line, from the kit.
    Line(String),
    /// A kernel of the user's.
    Path(PathBuf),
}

impl Kernel {
    /// The path, if it is one.
    pub(super) fn path(&self) -> Option<&PathBuf> {
        match self {
            Kernel::Line(_) => None,
            Kernel::Path(path) => Some(path),
        }
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kernel::Line(line) => f.write_str(line),
            Kernel::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A line of the kit, or a path: what has a slash or is there.
pub(super) fn kernel(text: &str) -> Result<Kernel, String> {
    match line(text) {
        Ok(line) => Ok(Kernel::Line(line)),
        Err(_) if text.contains('/') || Path::new(text).exists() => Ok(Kernel::Path(text.into())),
        Err(allowed) => Err(format!("{allowed}, or the path of a bzImage or of a kernel's build tree")),
    }
}

/// `IP:PORT`.
pub(super) fn address(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse().map_err(|_| "allowed is IP:PORT, such as 127.0.0.1:9090".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_a_unit_and_bounds() {
        assert_eq!(memory("2G"), Ok("2048M".into()));
        assert_eq!(memory("512m"), Ok("512M".into()));
        for bad in ["", "G", "2", "2T", "255M", "-1G", "+1G", "1.5G", "99999999999999999999G", "18446744073709551615G"]
        {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(cpus("2"), Ok(2));
        assert_eq!(cpus("65"), Err("allowed is 1 to 64".into()));
        assert!(seconds("0").is_err() && count("x").is_err());
    }

    #[test]
    fn kernels_are_lines_or_paths() {
        assert!(matches!(kernel("7.2"), Ok(Kernel::Line(l)) if l == "7.2"));
        assert!(matches!(kernel("./vmlinuz"), Ok(Kernel::Path(_))));
        assert!(matches!(kernel("."), Ok(Kernel::Path(_))));
        assert!(kernel("5.4").unwrap_err().contains("or the path of a bzImage"));
    }
}
