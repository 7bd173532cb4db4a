//! Picks the newest kernel of a line from the package lists.

use anyhow::{Context, Result};

use super::apt::Apt;
use super::lines::KernelLine;
use super::version;

/// A kernel that the archive has complete: image, modules, headers and source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Release {
    /// What `uname -r` says: `7.2.12+deb13-amd64`.
    pub(crate) release: String,
    /// The version of its packages and of its source.
    pub(crate) version: String,
}

/// The newest kernel of the line whose packages all have one version.
pub(crate) fn newest(apt: &Apt, line: &KernelLine) -> Result<Release> {
    let sources = apt.versions(&line.source)?;
    let image = line.images.first().map(String::as_str).unwrap_or_default();
    let (before, after) = image.split_once("{}").unwrap_or((image, ""));
    let mut complete = Vec::new();
    for release in releases(&apt.names(&format!("{before}{}", line.name()))?, before, after, line.name()) {
        for version in apt.versions(&image.replace("{}", &release))? {
            let rest = line.packages_of_one_version();
            let same = rest.map(|package| Ok(apt.versions(&package.replace("{}", &release))?.contains(&version)));
            if sources.contains(&version) && same.collect::<Result<Vec<bool>>>()?.into_iter().all(|x| x) {
                complete.push(Release { release: release.clone(), version });
            }
        }
    }
    let newest = complete.into_iter().max_by(|a, b| version::compare(&a.version, &b.version));
    newest.with_context(|| absent(line, "complete kernel"))
}

/// The newest version of the line's source.
pub(crate) fn newest_source(apt: &Apt, line: &KernelLine) -> Result<String> {
    let newest = apt.versions(&line.source)?.into_iter().max_by(|a, b| version::compare(a, b));
    newest.with_context(|| absent(line, "source"))
}

fn absent(line: &KernelLine, what: &str) -> String {
    let (name, suites) = (line.name(), line.suites.join(", "));
    format!("the mirror has no {what} of the line {name} in {suites}: is it up to date?")
}

/// The releases of a line among package names; special flavours have a word before the
/// architecture.
fn releases(names: &[String], before: &str, after: &str, line: &str) -> Vec<String> {
    let mut found: Vec<String> = names
        .iter()
        .filter_map(|name| name.strip_prefix(before)?.strip_suffix(after))
        .filter(|release| {
            let plain = release
                .strip_suffix("-amd64")
                .is_some_and(|r| !r.contains('-') || r.ends_with(|c: char| c.is_ascii_digit()));
            plain && release.strip_prefix(line).is_some_and(|rest| rest.starts_with(['.', '-', '+']))
        })
        .map(str::to_string)
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_plain_flavour_of_the_line_counts() {
        let names: Vec<String> = [
            "linux-binary-7.2.12+deb13-amd64",
            "linux-binary-7.2.12+deb13-rt-amd64",
            "linux-binary-7.2.12+deb13-cloud-amd64",
            "linux-binary-7.2.9+deb13-amd64",
            "linux-binary-7.20.1-amd64",
            "linux-image-7.2.9+deb13-amd64",
        ]
        .map(String::from)
        .to_vec();
        assert_eq!(releases(&names, "linux-binary-", "", "7.2"), ["7.2.12+deb13-amd64", "7.2.9+deb13-amd64"]);
        let names =
            ["linux-image-6.1.0-40-amd64-unsigned", "linux-image-6.1.0-40-cloud-amd64-unsigned"].map(String::from);
        assert_eq!(releases(&names, "linux-image-", "-unsigned", "6.1"), ["6.1.0-40-amd64"]);
    }
}
