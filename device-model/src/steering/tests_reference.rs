//! Random tables and packets, against a matcher that looks at every entry.

use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::packet::MatchKey;
use crate::packet::key::DWORDS;

/// A rule as the reference sees it.
struct Plain {
    index: u32,
    mask: MatchKey,
    value: MatchKey,
}

/// Keys over few dwords with few values, so that rules meet packets.
fn key() -> impl Strategy<Value = MatchKey> {
    let word = prop_oneof![Just(0u32), Just(1), Just(2), Just(3), Just(0x8000_0000)];
    (word.clone(), word.clone(), word.clone(), word).prop_map(|(a, b, c, d)| {
        let mut k = MatchKey::default();
        (k.0[2], k.0[17], k.0[59], k.0[70]) = (a, b, c, d);
        k
    })
}

fn mask() -> impl Strategy<Value = MatchKey> {
    prop_oneof![4 => key(), 1 => Just(MatchKey([u32::MAX; DWORDS]))]
}

#[derive(Debug, Clone)]
enum Op {
    Insert { group: usize, offset: u32, value: MatchKey },
    Delete { index: u32 },
    Packet(MatchKey),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..6usize, 0..40u32, key()).prop_map(|(group, offset, value)| Op::Insert { group, offset, value }),
        1 => (0..256u32).prop_map(|index| Op::Delete { index }),
        4 => key().prop_map(Op::Packet),
    ]
}

/// Bits of the blocks that `criteria` enables; 16 dwords a block.
fn enabled(mask: &MatchKey, criteria: u8) -> MatchKey {
    let mut out = mask.clone();
    for (i, d) in out.0.iter_mut().enumerate() {
        if i / 16 > 6 || (criteria >> (i / 16)) & 1 == 0 {
            *d = 0;
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn lookups_agree_with_a_linear_scan(
        groups in prop::collection::vec((1..40u32, 0..0x80u8, mask()), 1..6),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut s = S::new(Limits::default());
        let t = rx(&mut s, 0, 8);
        let mut made = Vec::new();
        let mut start = 0;
        for (len, criteria, mask) in &groups {
            let id = s.create_group(TableType::NicRx, t, (start, start + len - 1), *criteria, mask).unwrap();
            made.push((id, start, *len, enabled(mask, *criteria)));
            start += len;
        }
        let mut plain: Vec<Plain> = Vec::new();
        let at = s.table_ref(t).unwrap();
        for op in ops {
            match op {
                Op::Insert { group, offset, value } => {
                    let (id, start, len, mask) = &made[group % made.len()];
                    let index = start + offset;
                    let done = rule(&mut s, t, *id, index, &value, tir(index)).is_ok();
                    prop_assert_eq!(done, offset < *len && plain.iter().all(|p| p.index != index));
                    if done {
                        plain.push(Plain { index, mask: mask.clone(), value });
                    }
                }
                Op::Delete { index } => {
                    let done = s.delete_fte(TableType::NicRx, t, index).is_ok();
                    prop_assert_eq!(done, plain.iter().any(|p| p.index == index));
                    plain.retain(|p| p.index != index);
                }
                Op::Packet(key) => {
                    let hits = |p: &&Plain| (0..DWORDS).all(|i| (key.0[i] ^ p.value.0[i]) & p.mask.0[i] == 0);
                    let best = plain.iter().filter(hits).map(|p| p.index).min();
                    let want = best.map_or("default".to_string(), |i| format!("tir {i}"));
                    let got = verdicts(&s, at, &mut Mock { key: key.clone(), ..Mock::default() });
                    prop_assert_eq!(got, [want]);
                }
            }
        }
    }
}
