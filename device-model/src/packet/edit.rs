//! VLAN tags pushed and popped.

use sfnic_firmware_cmds::layouts::{FteMatchSetLyr24 as Lyr, FteMatchSetMisc as Misc};
use sfnic_firmware_cmds::{Layout, View};

use super::frame::Frame;
use super::headers::{VlanTag, ethertype};
use super::key::{MISC, OUTER};
use super::parse::is_vlan;

/// Where the tags start: behind the two addresses.
const TAGS: usize = 12;
/// Bytes of one tag.
const TAG: usize = VlanTag::SIZE;

/// A tag as the match fields hold it: cvlan_tag, svlan_tag, prio, cfi, vid.
type Tag = [u32; 5];

fn tag_of(tpid: u16, tci: u16) -> Tag {
    let raw = [tci.to_be_bytes(), [0; 2]].concat();
    let v = View::<VlanTag>::new(&raw);
    let (c, s) = (tpid == ethertype::CVLAN, tpid == ethertype::SVLAN);
    [c.into(), s.into(), v.get(VlanTag::prio), v.get(VlanTag::cfi), v.get(VlanTag::vid)]
}

const FIRST: [sfnic_firmware_cmds::layout::Field<Lyr>; 5] =
    [Lyr::cvlan_tag, Lyr::svlan_tag, Lyr::first_prio, Lyr::first_cfi, Lyr::first_vid];
const SECOND: [sfnic_firmware_cmds::layout::Field<Misc>; 5] = [
    Misc::outer_second_cvlan_tag,
    Misc::outer_second_svlan_tag,
    Misc::outer_second_prio,
    Misc::outer_second_cfi,
    Misc::outer_second_vid,
];

impl Frame<'_> {
    /// Pushes a tag in front of those there are: FTE actions `VLAN_PUSH` and
    /// `VLAN_PUSH_2`, vport VLAN insertion. False, and the frame unchanged,
    /// where there is no room for it.
    ///
    /// An ethertype that is not 0x8100 or 0x88a8 is written as asked and then
    /// read as the end of Ethernet.
    pub fn push_vlan(&mut self, tpid: u16, tci: u16) -> bool {
        let Some(room) = self.open(TAGS, TAG) else { return false };
        room[..2].copy_from_slice(&tpid.to_be_bytes());
        room[2..].copy_from_slice(&tci.to_be_bytes());
        if self.layers.vlans >= 2 || !is_vlan(tpid) || self.layers.l2_len == 0 {
            self.parse();
            return true;
        }
        if self.layers.vlans == 1 {
            for (first, second) in FIRST.into_iter().zip(SECOND) {
                let v = self.key.get(OUTER, first);
                self.key.set(MISC, second, v);
            }
        }
        for (f, v) in FIRST.into_iter().zip(tag_of(tpid, tci)) {
            self.key.set(OUTER, f, v);
        }
        self.layers.vlans += 1;
        self.shift_layers(TAG as i32);
        true
    }

    /// Pops the outermost tag and returns its ethertype and TCI; none where
    /// the frame has no tag.
    pub fn pop_vlan(&mut self) -> Option<(u16, u16)> {
        if self.layers.vlans == 0 {
            return None;
        }
        let tag = *self.headers().get(TAGS..)?.first_chunk::<TAG>()?;
        if !self.close(TAGS, TAG) {
            return None;
        }
        let out = (u16::from_be_bytes([tag[0], tag[1]]), u16::from_be_bytes([tag[2], tag[3]]));
        if is_vlan(self.layers.ethertype) {
            // There was a third tag: it is the second one now.
            self.parse();
            return Some(out);
        }
        for (first, second) in FIRST.into_iter().zip(SECOND) {
            let v = self.key.get(MISC, second);
            self.key.set(OUTER, first, v);
            self.key.set(MISC, second, 0);
        }
        self.layers.vlans -= 1;
        self.shift_layers(-(TAG as i32));
        Some(out)
    }

    /// Moves all that lies behind the outer tags.
    fn shift_layers(&mut self, by: i32) {
        let l = &mut self.layers;
        l.l2_len = (i32::from(l.l2_len) + by).max(0) as u16;
        l.shift(by);
        l.l2_off = 0;
        if let Some(i) = &mut self.inner {
            i.shift(by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, Ip, Proto};
    use super::*;

    /// What a fresh parse would find is what the edit left behind.
    fn in_step(f: &Frame) {
        let mut again = f.clone();
        again.parse();
        assert_eq!(again.key, f.key);
        assert_eq!((again.layers, again.inner, again.tunnel), (f.layers, f.inner, f.tunnel));
    }

    #[test]
    fn push_and_pop_undo_each_other() {
        for mut raw in [
            samples::frame(Ip::V4, Proto::Tcp, 400),
            samples::frame(Ip::V6, Proto::Udp, 0),
            samples::udp_tunnel(4789, 9, &samples::frame(Ip::V4, Proto::Udp, 30)),
        ] {
            let whole = raw.clone();
            let mut f = Frame::from_bytes(&mut raw).unwrap();
            f.parse();
            let tags = [(0x8100, 5), (0x88a8, 0xf00a), (0x8100, 0x2fff)];
            for (tpid, tci) in tags {
                assert!(f.push_vlan(tpid, tci));
                in_step(&f);
            }
            let mut out = vec![0; f.len()];
            f.write_into(&mut out);
            assert_eq!(out, samples::tagged(&whole, &[tags[2], tags[1], tags[0]]));
            for tag in tags.into_iter().rev() {
                assert_eq!(f.pop_vlan(), Some(tag));
                in_step(&f);
            }
            assert_eq!(f.pop_vlan(), None);
            let mut out = vec![0; f.len()];
            f.write_into(&mut out);
            assert_eq!(out, whole);
        }
    }

    #[test]
    fn pushing_ends_where_the_room_ends() {
        let mut raw = samples::frame(Ip::V4, Proto::Tcp, 0);
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        let pushed = (0..1000).take_while(|_| f.push_vlan(0x8100, 1)).count();
        assert_eq!(pushed, super::super::frame::HEADROOM / TAG);
        in_step(&f);
    }
}
