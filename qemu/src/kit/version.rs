//! Debian version numbers, in the order of dpkg.

use std::cmp::Ordering;

/// Compares two Debian versions (`[epoch:]upstream[-revision]`) as dpkg does.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (epoch_a, upstream_a, revision_a) = split(a);
    let (epoch_b, upstream_b, revision_b) = split(b);
    epoch_a
        .cmp(&epoch_b)
        .then_with(|| compare_part(upstream_a, upstream_b))
        .then_with(|| compare_part(revision_a, revision_b))
}

fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Alternates between a run without digits (where `~` sorts before the end and letters
/// before the rest) and a number.
fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        loop {
            let (x, y) = (weight(a.first()), weight(b.first()));
            if x != y {
                return x.cmp(&y);
            }
            if x == 0 {
                break;
            }
            (a, b) = (&a[1..], &b[1..]);
        }
        let (x, y) = (number(&mut a), number(&mut b));
        if x != y {
            return x.cmp(&y);
        }
    }
    Ordering::Equal
}

/// The order of one byte outside a number; 0 for a digit and for the end.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(c) if c.is_ascii_digit() => 0,
        Some(b'~') => -1,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    }
}

fn number(bytes: &mut &[u8]) -> u128 {
    let digits = bytes.iter().take_while(|c| c.is_ascii_digit()).count();
    let (head, tail) = bytes.split_at(digits);
    *bytes = tail;
    head.iter().fold(0u128, |n, c| n.saturating_mul(10).saturating_add(u128::from(c - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_dpkg() {
        let rising = [
            "1.0~rc1-1",
            "1.0-1~bpo13+1",
            "1.0-1",
            "1.0-1+b1",
            "1.0a-1",
            "1.0+x-1",
            "1.2-1",
            "1.10-1",
            "7.2.9-1",
            "7.2.12-1~bpo13+1",
            "1:0.5-1",
        ];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("1.01-1", "1.1-1"), Ordering::Equal);
    }
}
