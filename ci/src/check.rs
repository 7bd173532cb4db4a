//! What a script says of its checks: lines `ok NAME`, `not ok NAME: WHY`, `skip NAME: WHY`.

use serde::{Deserialize, Serialize};

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "verdict", content = "why")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Why it is not.
    Failed(String),
    /// Why this kernel cannot be checked for it.
    Skipped(String),
}

/// One thing that a script checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Check {
    /// A line of a script's output, if it tells of a check.
    fn parse(line: &str) -> Option<Check> {
        if let Some(name) = line.strip_prefix("ok ") {
            return Some(Check { name: name.trim().to_owned(), verdict: Verdict::Ok });
        }
        if let Some((name, why)) = line.strip_prefix("not ok ").and_then(|rest| rest.split_once(": ")) {
            return Some(Check { name: name.to_owned(), verdict: Verdict::Failed(why.to_owned()) });
        }
        let (name, why) = line.strip_prefix("skip ")?.split_once(": ")?;
        Some(Check { name: name.to_owned(), verdict: Verdict::Skipped(why.to_owned()) })
    }

    /// Why it is not as it should be.
    pub fn failure(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Failed(why) => Some(why),
            _ => None,
        }
    }

    /// Why it was skipped.
    pub fn skip(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Skipped(why) => Some(why),
            _ => None,
        }
    }
}

/// Whether a script had something to say and skipped all of it.
pub fn all_skipped(checks: &[Check]) -> bool {
    !checks.is_empty() && checks.iter().all(|c| c.skip().is_some())
}

/// The checks in a script's output.
pub fn parse(stdout: &str) -> Vec<Check> {
    stdout.lines().filter_map(Check::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_from_the_output() {
        let said = "hello\nok ping 64\nnot ok tcp: hash differs: a, b\nokay\nskip eqs: the kernel has none: at all\n";
        let checks = parse(said);
        assert_eq!(checks.len(), 3);
        assert_eq!(checks[0], Check { name: "ping 64".into(), verdict: Verdict::Ok });
        assert_eq!(checks[1].failure(), Some("hash differs: a, b"));
        assert_eq!((checks[2].name.as_str(), checks[2].skip()), ("eqs", Some("the kernel has none: at all")));
    }
}
