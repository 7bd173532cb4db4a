//! Finds a Debian mirror in the machine's own apt configuration.
//!
//! No host name is written in this program: whatever the machine installs its packages
//! from also serves the kit.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

/// One archive that the machine's apt reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// `http://…/debian`, without a slash at the end.
    pub(crate) uri: String,
    /// Suites, such as `bookworm`.
    pub(crate) suites: Vec<String>,
    /// Components, such as `main`.
    pub(crate) components: Vec<String>,
}

/// Reads one-line entries (`sources.list`, `*.list`).
pub(crate) fn parse_list(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("").trim();
        let Some(rest) = line.strip_prefix("deb ").or_else(|| line.strip_prefix("deb\t")) else { continue };
        let mut rest = rest.trim();
        if rest.starts_with('[') {
            let Some((_, tail)) = rest.split_once(']') else { continue };
            rest = tail.trim();
        }
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else { continue };
        found.push(Source {
            uri: uri.trim_end_matches('/').to_string(),
            suites: vec![suite.to_string()],
            components: words.map(str::to_string).collect(),
        });
    }
    found
}

/// Reads deb822 stanzas (`*.sources`).
pub(crate) fn parse_deb822(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            found.extend(stanza(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_string()));
        }
    }
    found
}

fn stanza(fields: &[(String, String)]) -> Vec<Source> {
    let words = |name: &str| -> Vec<String> {
        fields
            .iter()
            .filter(|(field, _)| field == name)
            .flat_map(|(_, value)| value.split_whitespace())
            .map(str::to_string)
            .collect()
    };
    let off = words("enabled").first().is_some_and(|v| matches!(v.as_str(), "no" | "false" | "0"));
    if off || !words("types").iter().any(|t| t == "deb") {
        return Vec::new();
    }
    let one = |uri: String| Source {
        uri: uri.trim_end_matches('/').to_string(),
        suites: words("suites"),
        components: words("components"),
    };
    words("uris").into_iter().map(one).collect()
}

/// Releases whose mere name says that an archive is Debian's.
const DEBIAN_SUITES: [&str; 9] =
    ["bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable", "oldstable", "bullseye"];

/// Picks the main Debian archive: it has a Debian suite (not the security archive's) and
/// the component `main`.
pub(crate) fn pick(sources: &[Source]) -> Option<String> {
    sources
        .iter()
        .find(|s| {
            s.components.iter().any(|c| c == "main") && s.suites.iter().any(|x| DEBIAN_SUITES.contains(&x.as_str()))
        })
        .map(|s| s.uri.clone())
}

/// The Debian mirror of the machine whose apt configuration is in `etc_apt`.
pub(crate) fn machine_mirror(etc_apt: &Path) -> Result<String> {
    let mut sources = parse_list(&fs::read_to_string(etc_apt.join("sources.list")).unwrap_or_default());
    let mut files: Vec<_> = fs::read_dir(etc_apt.join("sources.list.d"))
        .map(|dir| dir.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    files.sort();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|e| e.to_str()) {
            Some("list") => sources.extend(parse_list(&text)),
            Some("sources") => sources.extend(parse_deb822(&text)),
            _ => {}
        }
    }
    match pick(&sources) {
        Some(uri) => Ok(uri),
        None => bail!("no Debian mirror in {}: name one with SFNIC_MIRROR=http://HOST/debian", etc_apt.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_line_entries() {
        let got = parse_list(
            "# deb http://a/debian trixie main\n\
             deb [signed-by=/k.gpg arch=amd64] http://b/debian/ trixie main contrib # x\n\
             deb-src http://c/debian trixie main\ndeb\thttp://d/x ./\n",
        );
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].uri, "http://b/debian");
        assert_eq!(got[0].components, ["main", "contrib"]);
        assert_eq!(got[1].suites, ["./"]);
    }

    #[test]
    fn reads_deb822_stanzas() {
        let got = parse_deb822(
            "Types: deb deb-src\n# note\nURIs: http://a/debian\n http://b/debian\nSuites: bookworm bookworm-updates\n\
             Components: main\n\nTypes: deb\nEnabled: no\nURIs: http://c/x\nSuites: s\nComponents: main\n",
        );
        assert_eq!(got.iter().map(|s| s.uri.as_str()).collect::<Vec<_>>(), ["http://a/debian", "http://b/debian"]);
        assert_eq!(got[0].suites, ["bookworm", "bookworm-updates"]);
    }

    #[test]
    fn picks_the_main_archive() {
        let text = "deb http://s/debian-security bookworm-security main\ndeb http://v/vendor nodistro main\n\
                    deb http://m/debian bookworm-updates main\ndeb http://m/debian bookworm main\n";
        assert_eq!(pick(&parse_list(text)).as_deref(), Some("http://m/debian"));
        assert_eq!(pick(&parse_list("deb http://u/ubuntu noble main\n")), None);
    }
}
