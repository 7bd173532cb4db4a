//! Properties that hold for all frames, also those that no honest sender
//! makes.

use proptest::collection::vec;
use proptest::prelude::*;
use sfnic_firmware_cmds::View;

use super::action::{FIELDS, HeaderAction};
use super::checksum::{Fill, fill, rx_check_sum, sum, verify};
use super::frame::{Frame, GuestSlice};
use super::lso::segment;
use super::reformat::Reformat;
use super::samples::{self, Ip, Proto};
use super::toeplitz::{HashFields, HashFn, Selector, rx_hash};

fn all(f: &Frame) -> Vec<u8> {
    let mut out = vec![0; f.len()];
    assert_eq!(f.write_into(&mut out), f.len());
    out
}

fn honest() -> impl Strategy<Value = Vec<u8>> {
    let tags = vec((prop_oneof![Just(0x8100u16), Just(0x88a8)], any::<u16>()), 0..3);
    (any::<bool>(), any::<bool>(), 0usize..2000, tags, 0u8..4).prop_map(|(v6, udp, n, tags, wrap)| {
        let f = samples::frame(if v6 { Ip::V6 } else { Ip::V4 }, if udp { Proto::Udp } else { Proto::Tcp }, n);
        let f = match wrap {
            0 => samples::udp_tunnel(4789, 3, &f),
            1 => samples::udp_tunnel(6081, 3, &f),
            2 => samples::gre(0x6558, 3, &f),
            _ => f,
        };
        samples::tagged(&f, &tags)
    })
}

/// An honest frame with some bytes of its first 130 replaced.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    (honest(), vec((0usize..130, any::<u8>()), 0..12), 14usize..2200).prop_map(|(mut f, edits, len)| {
        for (at, b) in edits {
            if let Some(p) = f.get_mut(at) {
                *p = b;
            }
        }
        f.truncate(len);
        f
    })
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 14..600), mangled()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_break_anything(
        mut raw in hostile(),
        actions in vec(any::<[u8; 8]>(), 0..4),
        pick in 0..FIELDS.len(),
        context in vec(any::<u8>(), 8..160),
        (mss, hdr) in (0usize..3000, 0usize..300),
        flags in any::<[bool; 4]>(),
    ) {
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        let _ = f.to_string();
        let _ = verify(&f);
        let _ = rx_check_sum(&f);
        let sel = Selector { ipv6: flags[0], udp: flags[1], fields: HashFields::all() };
        rx_hash(&HashFn::new(2, &[7; 40]).unwrap(), flags[2], sel, &f.key, flags[3]);
        let mut lens = 0;
        let fits = segment(&f, mss, hdr, |s| lens += s.len() - hdr);
        prop_assert_eq!(lens, if fits.is_some() { f.len() - hdr } else { 0 });
        fill(&mut f, Fill { l3: flags[0], l4: flags[1], inner_l3: flags[2], inner_l4: flags[3] });
        for mut a in actions {
            a[0] = 0x10 | a[0] & 0x20;
            a[1] = FIELDS[pick].id as u8;
            a[2..4].fill(0);
            if let Ok(a) = HeaderAction::decode(&a) {
                a.apply(&mut f);
                let mut again = f.clone();
                again.parse();
                prop_assert_eq!(&again.key, &f.key);
            }
        }
        if flags[0] {
            f.push_vlan(0x8100, 3);
        } else {
            f.pop_vlan();
        }
        let mut again = f.clone();
        again.parse();
        prop_assert_eq!(&again.key, &f.key);
        prop_assert_eq!((again.layers, again.inner), (f.layers, f.inner));
        let mut context = context;
        context[0] &= 0x1f;
        context[2] = 0;
        if let Ok(r) = Reformat::decode(View::new(&context)) {
            let _ = r.apply(&mut f);
            prop_assert!(f.len() >= 14);
        }
        let _ = f.decap_l2();
        prop_assert_eq!(all(&f).len(), f.len());
    }

    #[test]
    fn filled_checksums_verify(mut raw in honest(), garbage in any::<u16>(), at in 34usize..120) {
        // Whatever stood in a checksum's place does not matter; a changed
        // payload byte does not either.
        if raw.len() > 300 {
            let _ = at;
            raw[299] ^= garbage as u8;
        }
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        let tunneled = f.inner.is_some();
        fill(&mut f, Fill { l3: true, l4: true, inner_l3: tunneled, inner_l4: tunneled });
        let v = verify(&f);
        prop_assert!(v.l3_ok());
        let innermost = v.inner.unwrap_or(v.outer);
        prop_assert!(innermost.has_l4 && innermost.l4_ok);
        prop_assert_eq!(rx_check_sum(&f), sum(&all(&f)[14..]));
    }

    #[test]
    fn segments_join_to_the_payload(
        v6 in any::<bool>(), udp in any::<bool>(), n in 0usize..9000, mss in 20usize..4000,
        cuts in vec(0usize..9000, 0..6), head in 14usize..256,
    ) {
        let (ip, proto) = (if v6 { Ip::V6 } else { Ip::V4 }, if udp { Proto::Udp } else { Proto::Tcp });
        let hdr = 14 + if v6 { 40 } else { 20 } + if udp { 8 } else { 20 };
        let raw = samples::frame(ip, proto, n);
        let mut copy = raw.clone();
        let (first, mut rest) = copy.split_at_mut(hdr);
        let mut slices = vec![];
        for c in cuts {
            let (a, b) = rest.split_at_mut(c.min(rest.len()));
            slices.push(GuestSlice::from(a));
            rest = b;
        }
        slices.push(GuestSlice::from(rest));
        let mut f = Frame::gather_head(first, slices, head).unwrap();
        f.parse();
        let mut joined = vec![];
        let count = segment(&f, mss, hdr, |s| {
            let v = verify(s);
            assert!(v.l3_ok() && v.l4_ok());
            joined.extend_from_slice(&all(s)[hdr..]);
        });
        prop_assert_eq!(count, Some(n.div_ceil(mss).max(1)));
        prop_assert_eq!(&joined[..], &raw[hdr..]);
    }

    #[test]
    fn tags_come_off_as_they_went_on(mut raw in hostile(), tags in vec(any::<(bool, u16)>(), 1..5)) {
        let whole = raw.clone();
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        let tags: Vec<_> = tags.into_iter().map(|(s, tci)| (if s { 0x88a8 } else { 0x8100 }, tci)).collect();
        for (tpid, tci) in &tags {
            prop_assert!(f.push_vlan(*tpid, *tci));
        }
        for tag in tags.into_iter().rev() {
            prop_assert_eq!(f.pop_vlan(), Some(tag));
        }
        prop_assert_eq!(all(&f), whole);
    }

    #[test]
    fn rewritten_headers_keep_their_checksums_right(
        mut raw in honest(), which in vec((0..FIELDS.len(), 0u32..32, 0u32..32, any::<u32>()), 1..6),
    ) {
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        prop_assert!(verify(&f).l3_ok());
        let before = verify(&f).l4_ok();
        for (i, offset, length, data) in which {
            let field = &FIELDS[i];
            let word = 1 << 28 | u32::from(field.id) << 16 | offset << 8 | length;
            let mut a = [0; 8];
            a[..4].copy_from_slice(&word.to_be_bytes());
            a[4..].copy_from_slice(&data.to_be_bytes());
            if field.name != "ETHERTYPE" && let Ok(a) = HeaderAction::decode(&a) {
                a.apply(&mut f);
            }
        }
        // A port that was a tunnel's may not be one any more; the key is read
        // again to see what the bytes say now.
        f.parse();
        prop_assert!(verify(&f).outer.l3_ok);
        prop_assert!(!before || !f.layers.l3_len_ok || verify(&f).outer.l4_ok || f.layers.l4_len == 0);
    }
}
