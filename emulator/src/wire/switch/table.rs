//! Which port an address was last seen at. It reads no clock: whoever hands in a frame says
//! what time it is.
//!
//! As IEEE 802.1Q has it: addresses are learnt for each VLAN by itself, tags stay as they
//! are, and frames to the group addresses of link protocols (STP, LACP, LLDP, pause) end here.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::time::Duration;

use serde::Serialize;

/// Most addresses that are known at a time; beyond them none is learnt, and frames to the
/// others go everywhere.
pub const MOST: usize = 4096;
/// How often the whole table is looked through for what is too old.
const SWEEP: Duration = Duration::from_secs(1);

/// Ethertypes of VLAN tags.
const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
/// 01:80:c2:00:00:00 to :0f are for the next station only.
const LINK_LOCAL: [u8; 5] = [0x01, 0x80, 0xc2, 0x00, 0x00];

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To one port.
    Port(usize),
    /// To all but the one that it came from.
    Flood,
    /// Nowhere: it came from where its destination is.
    Back,
    /// Nowhere: no frame that a switch passes on.
    Refused,
}

/// An address in a VLAN; 0 is no VLAN.
type Station = (u16, [u8; 6]);

#[derive(Debug, Clone, Copy)]
struct Seen {
    port: usize,
    at: Duration,
}

/// A station as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StationView {
    /// Its address.
    pub mac: String,
    /// Its VLAN; 0 for none.
    pub vlan: u16,
    /// Number of the port where it is.
    #[serde(skip)]
    pub port: usize,
    /// Seconds since it was heard.
    pub age: u64,
}

/// What is known.
#[derive(Debug)]
pub struct Table {
    ageing: Duration,
    stations: HashMap<Station, Seen>,
    swept: Duration,
    /// Addresses that were not learnt because the table was full.
    pub full: u64,
    /// Addresses that turned up at another port.
    pub moved: u64,
}

impl Table {
    /// An empty one; who is silent for longer than `ageing` is forgotten.
    pub fn new(ageing: Duration) -> Self {
        Self { ageing, stations: HashMap::new(), swept: Duration::ZERO, full: 0, moved: 0 }
    }

    /// Where a frame goes that came by `port` at the time `now`, and learns from it.
    pub fn pass(&mut self, now: Duration, port: usize, frame: &[u8]) -> Verdict {
        let Some(([to, from], rest)) = addresses(frame) else { return Verdict::Refused };
        if from[0] & 1 != 0 || from == [0; 6] || to[..5] == LINK_LOCAL && to[5] < 0x10 {
            return Verdict::Refused;
        }
        let vlan = vlan(rest);
        self.sweep(now);
        self.learn(now, port, (vlan, from));
        if to[0] & 1 != 0 {
            return Verdict::Flood;
        }
        match self.stations.get(&(vlan, to)).filter(|s| now.saturating_sub(s.at) <= self.ageing) {
            Some(s) if s.port == port => Verdict::Back,
            Some(s) => Verdict::Port(s.port),
            None => Verdict::Flood,
        }
    }

    fn learn(&mut self, now: Duration, port: usize, station: Station) {
        let room = self.stations.len() < MOST;
        match self.stations.entry(station) {
            Place::Occupied(mut known) => {
                self.moved += u64::from(known.get().port != port);
                known.insert(Seen { port, at: now });
            }
            Place::Vacant(place) if room => {
                place.insert(Seen { port, at: now });
            }
            Place::Vacant(_) => self.full += 1,
        }
    }

    fn sweep(&mut self, now: Duration) {
        if now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            let ageing = self.ageing;
            self.stations.retain(|_, s| now.saturating_sub(s.at) <= ageing);
        }
    }

    /// Forgets who was at a port: its link went down.
    pub fn forget(&mut self, port: usize) {
        self.stations.retain(|_, s| s.port != port);
    }

    /// Who is known, by VLAN and address.
    pub fn list(&self, now: Duration) -> Vec<StationView> {
        let mut all: Vec<(&Station, &Seen)> = self.stations.iter().collect();
        all.retain(|(_, s)| now.saturating_sub(s.at) <= self.ageing);
        all.sort_by_key(|(station, _)| **station);
        let view = |((vlan, mac), s): (&Station, &Seen)| StationView {
            mac: mac.map(|b| format!("{b:02x}")).join(":"),
            vlan: *vlan,
            port: s.port,
            age: now.saturating_sub(s.at).as_secs(),
        };
        all.into_iter().map(view).collect()
    }
}

/// Destination, source, and what is behind them.
fn addresses(frame: &[u8]) -> Option<([[u8; 6]; 2], &[u8])> {
    let (to, rest) = frame.split_first_chunk::<6>()?;
    let (from, rest) = rest.split_first_chunk::<6>()?;
    (rest.len() >= 2).then_some(([*to, *from], rest))
}

/// The VLAN of the outer tag, if there is one.
fn vlan(behind: &[u8]) -> u16 {
    match behind.first_chunk::<4>() {
        Some([a, b, high, low]) if TAGS.contains(&[*a, *b]) => u16::from_be_bytes([*high, *low]) & 0xfff,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROADCAST: [u8; 6] = [0xff; 6];

    fn mac(n: u16) -> [u8; 6] {
        let [high, low] = n.to_be_bytes();
        [2, 0, 0, 0, high, low]
    }

    fn frame(to: [u8; 6], from: [u8; 6], tag: Option<u16>) -> Vec<u8> {
        let tag = tag.map(|vid| [&[0x81, 0][..], &(0xe000 | vid).to_be_bytes()].concat());
        [&to[..], &from, &tag.unwrap_or_default(), &[8, 0, 1, 2, 3]].concat()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn who_was_heard_is_found_and_others_are_looked_for_everywhere() {
        let mut t = Table::new(seconds(10));
        let pass = |t: &mut Table, at, port, to, from| t.pass(seconds(at), port, &frame(to, from, None));
        assert_eq!(pass(&mut t, 0, 0, BROADCAST, mac(1)), Verdict::Flood);
        assert_eq!(pass(&mut t, 0, 1, mac(1), mac(2)), Verdict::Port(0));
        assert_eq!(pass(&mut t, 0, 2, mac(9), mac(3)), Verdict::Flood);
        assert_eq!(pass(&mut t, 1, 0, mac(2), mac(1)), Verdict::Port(1));
        assert_eq!(pass(&mut t, 1, 1, mac(2), mac(4)), Verdict::Back);
        // It moves.
        assert_eq!(pass(&mut t, 2, 2, mac(1), mac(2)), Verdict::Port(0));
        assert_eq!(pass(&mut t, 2, 0, mac(2), mac(1)), Verdict::Port(2));
        assert_eq!(t.moved, 1);
        // It is silent for too long.
        assert_eq!(pass(&mut t, 12, 0, mac(2), mac(1)), Verdict::Port(2));
        assert_eq!(pass(&mut t, 13, 0, mac(2), mac(1)), Verdict::Flood);
        assert_eq!(t.list(seconds(13)).len(), 1);
        // Its port goes down.
        t.forget(0);
        assert!(t.list(seconds(13)).is_empty());
    }

    #[test]
    fn vlans_are_learnt_by_themselves() {
        let mut t = Table::new(seconds(10));
        for (port, vlan) in [(0, None), (1, Some(7)), (2, Some(8))] {
            t.pass(seconds(0), port, &frame(BROADCAST, mac(1), vlan));
        }
        for (port, vlan) in [(0, None), (1, Some(7)), (2, Some(8))] {
            assert_eq!(t.pass(seconds(0), 3, &frame(mac(1), mac(2), vlan)), Verdict::Port(port));
        }
        assert_eq!(t.pass(seconds(0), 3, &frame(mac(1), mac(2), Some(9))), Verdict::Flood);
        // A tag that gives a priority only is none.
        assert_eq!(t.pass(seconds(0), 3, &frame(mac(1), mac(2), Some(0))), Verdict::Port(0));
    }

    #[test]
    fn what_no_switch_passes_on_ends_and_teaches_nothing() {
        let mut t = Table::new(seconds(10));
        for to in [[1, 0x80, 0xc2, 0, 0, 0], [1, 0x80, 0xc2, 0, 0, 0xe]] {
            assert_eq!(t.pass(seconds(0), 0, &frame(to, mac(1), None)), Verdict::Refused);
        }
        for from in [BROADCAST, [1, 0, 0, 0, 0, 1], [0; 6]] {
            assert_eq!(t.pass(seconds(0), 0, &frame(mac(2), from, None)), Verdict::Refused);
        }
        for n in 0..14 {
            assert_eq!(t.pass(seconds(0), 0, &frame(mac(2), mac(1), None)[..n]), Verdict::Refused);
        }
        assert!(t.list(seconds(0)).is_empty());
        assert_eq!(t.pass(seconds(0), 0, &frame([1, 0x80, 0xc2, 0, 0, 0x10], mac(1), None)), Verdict::Flood);
    }

    #[test]
    fn the_table_is_bounded_and_frames_still_pass() {
        let mut t = Table::new(seconds(10));
        t.pass(seconds(0), 0, &frame(BROADCAST, mac(0xffff), None));
        for n in 0..2 * MOST as u16 {
            t.pass(seconds(0), 1, &frame(BROADCAST, mac(n), None));
        }
        assert_eq!(t.list(seconds(0)).len(), MOST);
        assert_eq!(t.full, 1 + MOST as u64);
        assert_eq!(t.pass(seconds(0), 1, &frame(mac(0xffff), mac(1), None)), Verdict::Port(0));
        assert_eq!(t.pass(seconds(0), 0, &frame(mac(2 * MOST as u16 - 1), mac(0xffff), None)), Verdict::Flood);
        // Room comes with time.
        t.pass(seconds(30), 0, &frame(BROADCAST, mac(9), None));
        assert_eq!(t.list(seconds(30)).len(), 1);
    }
}
