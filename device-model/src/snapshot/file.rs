//! A snapshot's outside: a line that says what it is, then its content.
//!
//! ```text
//! sfnic-snapshot 1 8d3f02c1 48213\n
//! ```
//!
//! The format, the CRC-32 and the length of the content, which is the state by serde, in
//! postcard's encoding.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::SnapshotError;

/// The format of the content. It is another one with every change of a structure in it; no
/// other is read.
pub const FORMAT: u32 = 1;

const MAGIC: &str = "sfnic-snapshot";
/// The first line is no longer.
const LINE: usize = 80;

/// Writes a state down.
pub(super) fn seal(state: &impl Serialize) -> Result<Vec<u8>, SnapshotError> {
    let content = postcard::to_stdvec(state).map_err(|e| SnapshotError::Damaged(e.to_string()))?;
    let mut all = format!("{MAGIC} {FORMAT} {:08x} {}\n", crc32fast::hash(&content), content.len()).into_bytes();
    all.extend(content);
    Ok(all)
}

/// Reads what [`seal`] wrote.
pub(super) fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SnapshotError> {
    let end = bytes.iter().take(LINE).position(|b| *b == b'\n').ok_or(SnapshotError::Foreign)?;
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| SnapshotError::Foreign)?;
    let words: Vec<&str> = line.split(' ').collect();
    if words[0] != MAGIC {
        return Err(SnapshotError::Foreign);
    }
    let damaged = |why: &str| SnapshotError::Damaged(why.to_owned());
    let format: u32 = words.get(1).and_then(|w| w.parse().ok()).ok_or_else(|| damaged("its first line"))?;
    if format != FORMAT {
        return Err(SnapshotError::Format(format));
    }
    let [_, _, sum, len] = words[..] else { return Err(damaged("its first line")) };
    let (sum, len) = (u32::from_str_radix(sum, 16), len.parse::<usize>());
    let (Ok(sum), Ok(len)) = (sum, len) else { return Err(damaged("its first line")) };
    let content = &bytes[end + 1..];
    if content.len() != len {
        return Err(SnapshotError::Damaged(format!("{} bytes, {len} were written", content.len())));
    }
    if crc32fast::hash(content) != sum {
        return Err(damaged("its checksum is wrong"));
    }
    match postcard::take_from_bytes(content) {
        Ok((state, [])) => Ok(state),
        Ok(_) => Err(damaged("bytes behind its end")),
        Err(e) => Err(SnapshotError::Damaged(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened_and_nothing_else_is() {
        let all = seal(&(7u32, "word")).unwrap();
        assert_eq!(open::<(u32, String)>(&all).unwrap(), (7, "word".to_owned()));
        for cut in 0..all.len() {
            assert!(open::<(u32, String)>(&all[..cut]).is_err(), "{cut}");
        }
        for at in 0..all.len() {
            let mut other = all.clone();
            other[at] ^= 1;
            assert!(open::<(u32, String)>(&other).is_err(), "{at}");
        }
        let text = |b: &[u8]| open::<(u32, String)>(b).unwrap_err().to_string();
        assert_eq!(text(b"ELF"), "not a snapshot of a device");
        assert!(
            text(b"sfnic-snapshot 999 0 0\n").starts_with("of format 999"),
            "{}",
            text(b"sfnic-snapshot 999 0 0\n")
        );
        assert!(open::<u64>(&all).is_err(), "something else");
    }
}
