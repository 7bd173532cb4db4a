//! The list of programs, and of cases whose result is known.

use serde::Deserialize;

/// What is run and what is known of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// In the order in which they run.
    #[serde(rename = "program")]
    pub programs: Vec<Program>,
    /// Cases that do not pass, each with the reason.
    #[serde(default)]
    pub known: Vec<Known>,
}

/// A program of the self-tests.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Below `tools/testing/selftests`; `ethtool-t` is the driver's own test.
    pub path: String,
    /// The longest that it may take.
    #[serde(default = "seconds")]
    pub seconds: u32,
    /// Any NIC has what it needs: a skip is a failure.
    #[serde(default)]
    pub basic: bool,
}

fn seconds() -> u32 {
    180
}

/// What is known of a case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The case's name, with `*` for anything.
    pub case: String,
    /// How it ends.
    pub result: KnownResult,
    /// Why.
    pub why: String,
}

/// The ends that need a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KnownResult {
    /// It fails.
    Fail,
    /// It skips itself.
    Skip,
}

impl Data {
    /// The project's own list.
    ///
    /// # Errors
    /// The list is not TOML of this form: a mistake of ours.
    pub fn builtin() -> anyhow::Result<Data> {
        Ok(toml::from_str(include_str!("kselftest.toml"))?)
    }

    /// The programs whose path or name a pattern matches.
    pub fn matching(&self, pattern: &str) -> Vec<Program> {
        let fits = |p: &&Program| {
            let name = p.path.rsplit('/').next().unwrap_or(&p.path);
            [p.path.as_str(), name, name.trim_end_matches(".py").trim_end_matches(".sh")]
                .iter()
                .any(|text| glob(pattern, text))
        };
        self.programs.iter().filter(fits).cloned().collect()
    }

    /// What is known of a case.
    pub fn known(&self, case: &str) -> Option<&Known> {
        self.known.iter().find(|k| glob(&k.case, case))
    }
}

/// Does a text match a pattern in which `*` is anything and `?` one character? One that is no
/// pattern matches nothing.
pub fn glob(pattern: &str, text: &str) -> bool {
    glob::Pattern::new(pattern).is_ok_and(|p| p.matches(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("rss*", "rss_ctx", true),
            ("*ctx", "rss_ctx", true),
            ("r*_*x", "rss_ctx", true),
            ("rss", "rss_ctx", false),
            ("?ing", "ping", true),
            ("?ping", "ping", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn the_list_is_sound() {
        let data = Data::builtin().unwrap();
        assert!(!data.programs.is_empty());
        assert_eq!(data.matching("rss_ctx").len(), 1);
        assert_eq!(data.matching("drivers/net/hw/csum.py").len(), 1);
        assert!(data.matching("nothing").is_empty());
        for known in &data.known {
            let program = known.case.split('.').next().unwrap();
            assert!(!data.matching(program).is_empty(), "{} is of no program", known.case);
            assert!(!known.why.is_empty());
        }
    }
}
