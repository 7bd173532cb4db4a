//! Results as JSON: `summary`, `kernels`, `suites`, `cells`; written and read.

use serde::Serialize;

use crate::matrix::{Counts, Matrix};

#[derive(Serialize)]
struct Whole<'a> {
    summary: Counts,
    #[serde(flatten)]
    matrix: &'a Matrix,
}

/// The whole of it, in lines.
pub fn json(matrix: &Matrix) -> String {
    let whole = Whole { summary: matrix.counts(), matrix };
    serde_json::to_string_pretty(&whole).unwrap_or_default() + "\n"
}

/// Results that [`json`] wrote.
///
/// # Errors
/// They are something else: what is wrong, and where.
pub fn read(text: &str) -> Result<Matrix, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::tests::sample;

    #[test]
    fn everything_is_there() {
        let value: serde_json::Value = serde_json::from_str(&json(&sample())).expect("JSON");
        assert_eq!(value["summary"], serde_json::json!({ "pass": 3, "fail": 2, "skip": 1 }));
        assert_eq!(value["cells"].as_array().map(Vec::len), Some(6));
        let bad = &value["cells"][1];
        assert_eq!((bad["status"].as_str(), bad["suite"].as_str()), (Some("fail"), Some("story")));
        assert_eq!(bad["checks"][1]["verdict"], "failed");
        assert_eq!(bad["checks"][1]["why"], "1 < 2 & 3");
        assert_eq!(value["cells"][2]["reason"], "before 6.12: no such thing");
    }

    #[test]
    fn what_is_written_is_read() {
        let text = json(&sample());
        assert_eq!(json(&read(&text).expect("results")), text);
        assert!(read("{}").is_err());
        assert!(read(&text[..text.len() / 2]).is_err());
    }
}
