//! A message from a wire: TCP segments that arrive one behind the other.
//!
//! What steering decides for the first one holds for those that differ from it in
//! nothing that steering reads: they have the same headers but for lengths,
//! identification and sequence number.

use super::counters::Tally;
use super::flows::cache::{End, Flow, Way};
use super::pipeline::Pipeline;
use super::receive::rx_info;
use crate::faults::Place;
use crate::nic::Card;
use crate::packet::checksum::{self, Summary};
use crate::packet::{FlowKey, Frame, L4, lso};
use crate::queue::RxDrop;

impl Pipeline<'_> {
    /// A parsed frame that stands for segments of `mss` bytes of payload each, which
    /// arrive at a physical port. Answers how many; none, and nothing received, where
    /// it cannot be cut ([`lso::segment`]).
    pub fn receive_message(&mut self, card: &Card, frame: &Frame<'_>, mss: usize, header: usize) -> Option<usize> {
        // Who wants to see every decision gets every decision made.
        let nic = self.nic;
        let watched = nic.explainer.is_on() || nic.capture.is_on() || nic.faults.at(Place::Frames);
        let mut learns = !watched && frame.inner.is_none() && frame.layers.l4 == L4::Tcp;
        let mut known: Option<(u16, Flow, Way)> = None;
        lso::segment(frame, mss, header, |s| match &known {
            Some((flags, flow, way)) if *flags == s.layers.tcp_flags && s.len() <= way.max_len => {
                self.follow(flow, way, s);
            }
            None if learns => {
                learns = false;
                let flags = s.layers.tcp_flags;
                known = self.receive_learning(card, s).map(|(flow, way)| (flags, flow, way));
            }
            _ => self.receive_parsed(card, s),
        })
    }

    /// As [`Pipeline::receive_parsed`]; answers what is to be known of the frame's way.
    fn receive_learning(&mut self, card: &Card, frame: &mut Frame<'_>) -> Option<(Flow, Way)> {
        self.begin_learning();
        self.receive_parsed(card, frame);
        let (flow, way, _) = self.end_learning(FlowKey::default())?;
        Some((flow, way))
    }

    /// A frame goes a known way.
    fn follow(&mut self, flow: &Flow, way: &Way, frame: &Frame<'_>) {
        let nic = self.nic;
        let mut tally = Tally::default();
        tally.count(frame.headers(), frame.len());
        flow.counters.iter().for_each(|c| nic.counters.add(self.worker, *c, frame.len() as u64));
        self.account(way.crossings, 1);
        way.ports_out.iter().filter_map(|c| nic.cards.get(*c)).for_each(|c| c.port.tx.add(&tally));
        way.ports_in.iter().filter_map(|c| nic.cards.get(*c)).for_each(|c| c.port.add_rx(&tally));
        let End::Queue { function, vport, rq, rss, lro } = &way.end else { return };
        vport.rx.add(&tally);
        let v = checksum::verify(frame);
        let sums = Summary { l3_ok: v.l3_ok(), l4_ok: v.l4_ok(), check_sum: checksum::rx_check_sum(frame) };
        let mut info = rx_info(frame, sums);
        (info.flow_tag, info.metadata) = (flow.flow_tag, flow.reg_b);
        (info.rss_hash, info.rss_type) = (flow.rss_hash, *rss);
        let end = self.hand_over((function, rq, *lro), frame, &sums, &info);
        if end.is_err_and(|e| e != RxDrop::NoBuffer) {
            vport.rx.errors.count(frame.len());
        }
    }
}
