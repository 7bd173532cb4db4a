//! What an eswitch manager lets a function's port carry: its source address, a VLAN that the
//! function knows nothing of, the length of its frames.
//!
//! A card does the same with the ACLs of a vport and with the tags of its eswitch context
//! (`esw_acl_ingress_lgcy_setup`, `esw_acl_egress_lgcy_setup`, `__mlx5_eswitch_set_vport_vlan`).

use super::counters::Counter;
use super::flows::record::Record;
use super::pipeline::Pipeline;
use super::vport::Vport;
use crate::packet::Frame;

/// EtherType of a C-VLAN tag.
const C_VLAN: u16 = 0x8100;
/// Bytes of a tag.
const TAG: usize = 4;
/// Bits of a TCI that are the VLAN's number.
const VID: u16 = 0xfff;
/// Bytes of addresses and EtherType.
const ETHERNET: usize = 14;

/// What a port's frames must be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Police {
    /// Frames of the function come from this address.
    pub source: Option<[u8; 6]>,
    /// The tag that the eswitch knows the function's frames by; the function's own have none.
    pub tag: Option<u16>,
    /// Most bytes behind the Ethernet header and its tags.
    pub mtu: usize,
}

/// Why a frame does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// It comes from another address than the function's.
    Spoofed,
    /// The function tagged it where the eswitch does.
    Tagged,
    /// It is longer than the port's MTU.
    TooLong,
    /// It is of another VLAN: none of this port's business.
    OtherVlan,
}

/// Frames that did not pass.
#[derive(Debug, Default, Clone, serde::Serialize, serde::Deserialize)]
pub struct Refused {
    /// See [`Breach::Spoofed`].
    pub spoofed: Counter,
    /// See [`Breach::Tagged`].
    pub tagged: Counter,
    /// See [`Breach::TooLong`]; both ways.
    pub too_long: Counter,
}

impl Refused {
    /// Sets the counts.
    pub(crate) fn put(&self, from: &Self) {
        let Self { spoofed, tagged, too_long } = from;
        self.spoofed.put(spoofed);
        self.tagged.put(tagged);
        self.too_long.put(too_long);
    }

    /// Counts one.
    pub fn count(&self, why: Breach) {
        match why {
            Breach::Spoofed => self.spoofed.add(1),
            Breach::Tagged => self.tagged.add(1),
            Breach::TooLong => self.too_long.add(1),
            Breach::OtherVlan => {}
        }
    }
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Breach::Spoofed => "another source address than the function's (spoof_check)",
            Breach::Tagged => "tagged, though the eswitch tags for the function (vlan)",
            Breach::TooLong => "longer than the port's mtu",
            Breach::OtherVlan => "of another VLAN",
        })
    }
}

impl Police {
    /// Whether frames are other ones behind the port than before it.
    pub const fn changes_frames(&self) -> bool {
        self.tag.is_some()
    }

    /// Bytes of the longest frame with as many tags as this one, without check sequence.
    pub fn max_len(&self, frame: &Frame<'_>) -> usize {
        self.mtu.saturating_add(ETHERNET).saturating_add(TAG * usize::from(frame.layers.vlans))
    }

    /// A frame leaves the function for the eswitch.
    ///
    /// # Errors
    /// Why it does not.
    pub fn leave(&self, frame: &mut Frame<'_>) -> Result<(), Breach> {
        if self.source.is_some_and(|mac| frame.headers().get(6..12) != Some(&mac[..])) {
            return Err(Breach::Spoofed);
        }
        self.fits(frame)?;
        match self.tag {
            Some(_) if frame.layers.vlans > 0 => Err(Breach::Tagged),
            Some(tci) if !frame.push_vlan(C_VLAN, tci) => Err(Breach::TooLong),
            _ => Ok(()),
        }
    }

    /// A frame comes from the eswitch to the function.
    ///
    /// # Errors
    /// Why it does not.
    pub fn enter(&self, frame: &mut Frame<'_>) -> Result<(), Breach> {
        if let Some(tci) = self.tag {
            let ours = |(tpid, got): (u16, u16)| tpid == C_VLAN && got & VID == tci & VID;
            if !frame.pop_vlan().is_some_and(ours) {
                return Err(Breach::OtherVlan);
            }
        }
        self.fits(frame)
    }

    fn fits(&self, frame: &Frame<'_>) -> Result<(), Breach> {
        if frame.len() > self.max_len(frame) { Err(Breach::TooLong) } else { Ok(()) }
    }
}

impl Pipeline<'_> {
    /// Whether the manager of a vport lets a frame pass, one way or the other. What it changes of
    /// it is done behind this.
    pub(super) fn allowed(
        &mut self,
        vport: &Vport,
        frame: &mut Frame<'_>,
        way: fn(&Police, &mut Frame<'_>) -> Result<(), Breach>,
    ) -> bool {
        let Some(police) = vport.police.load_full() else { return true };
        let max_len = police.max_len(frame);
        self.learn(|r| r.way.max_len = r.way.max_len.min(max_len));
        let done = way(&police, frame);
        if police.changes_frames() || done.is_err() {
            self.learn(Record::spoil);
        }
        if let Err(why) = done {
            vport.refused.count(why);
            self.note(|| format!("not for vport {:#x}: {why}", vport.number));
        }
        done.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// A frame of so many bytes of payload, tagged or not.
    fn bytes(source: [u8; 6], tag: Option<u16>, payload: usize) -> Vec<u8> {
        let mut all = [[2, 0, 0, 0, 0, 9], source].concat();
        if let Some(tci) = tag {
            all.extend(C_VLAN.to_be_bytes());
            all.extend(tci.to_be_bytes());
        }
        all.extend(0x88b5u16.to_be_bytes());
        all.resize(all.len() + payload, 0x5a);
        all
    }

    /// What a step answers to a frame, and the frame behind it.
    fn after(
        mut raw: Vec<u8>,
        step: impl FnOnce(&mut Frame<'_>) -> Result<(), Breach>,
    ) -> (Result<(), Breach>, Vec<u8>) {
        let mut f = Frame::from_bytes(&mut raw).unwrap();
        f.parse();
        let done = step(&mut f);
        let mut out = vec![0; f.len()];
        f.write_into(&mut out);
        (done, out)
    }

    #[test]
    fn a_source_is_the_functions_own_or_the_frame_is_dropped() {
        let p = Police { source: Some(OWN), tag: None, mtu: 1500 };
        assert_eq!(after(bytes(OWN, None, 60), |f| p.leave(f)), (Ok(()), bytes(OWN, None, 60)));
        assert_eq!(after(bytes([2; 6], None, 60), |f| p.leave(f)).0, Err(Breach::Spoofed));
        // What comes to it may be from anybody.
        assert_eq!(after(bytes([2; 6], None, 60), |f| p.enter(f)).0, Ok(()));
    }

    #[test]
    fn a_tag_is_put_on_and_taken_off() {
        let p = Police { source: None, tag: Some(3 << 13 | 7), mtu: 1500 };
        let tagged = bytes(OWN, Some(3 << 13 | 7), 60);
        assert_eq!(after(bytes(OWN, None, 60), |f| p.leave(f)), (Ok(()), tagged.clone()));
        assert_eq!(after(tagged.clone(), |f| p.enter(f)), (Ok(()), bytes(OWN, None, 60)));
        assert_eq!(after(bytes(OWN, Some(7), 60), |f| p.enter(f)).0, Ok(()), "whatever its priority");
        assert_eq!(after(bytes(OWN, Some(8), 60), |f| p.enter(f)).0, Err(Breach::OtherVlan));
        assert_eq!(after(bytes(OWN, None, 60), |f| p.enter(f)).0, Err(Breach::OtherVlan));
        assert_eq!(after(tagged, |f| p.leave(f)).0, Err(Breach::Tagged));
    }

    #[test]
    fn the_longest_frame_has_the_mtu_behind_its_header_and_tags() {
        let p = Police { source: None, tag: None, mtu: 1000 };
        for (tag, payload, fits) in
            [(None, 1000, true), (None, 1001, false), (Some(5), 1000, true), (Some(5), 1001, false)]
        {
            let want = if fits { Ok(()) } else { Err(Breach::TooLong) };
            assert_eq!(after(bytes(OWN, tag, payload), |f| p.leave(f)).0, want, "{payload}");
            assert_eq!(after(bytes(OWN, tag, payload), |f| p.enter(f)).0, want, "{payload}");
        }
        let p = Police { tag: Some(9), ..p };
        assert_eq!(after(bytes(OWN, None, 1000), |f| p.leave(f)).0, Ok(()));
        assert_eq!(after(bytes(OWN, Some(9), 1000), |f| p.enter(f)).0, Ok(()));
    }
}
