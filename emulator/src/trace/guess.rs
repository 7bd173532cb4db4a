//! What the cards of a trace are made of: its header says so, or the answers
//! and the driver's own use of them do. One wrong answer decides nothing.

use std::collections::BTreeMap;

use sfnic_device_model::cmd::fields::{Side, bits, walk};
use sfnic_device_model::fabric::port::Far;
use sfnic_device_model::nic::CardConfig;
use sfnic_firmware_cmds::opcode::Opcode;

use super::Trace;

/// Most cards of a device that a trace is replayed on.
const MAX_CARDS: usize = 16;

/// The cards.
pub(super) fn cards(trace: &Trace) -> Vec<CardConfig> {
    let used = trace.commands().map(|(e, _)| usize::from(e.card) + 1).max().unwrap_or(1);
    let count = used.max(trace.header.cards.len()).min(MAX_CARDS);
    let mut cards: Vec<CardConfig> = (0..count).map(|i| card(trace, i)).collect();
    for (c, known) in cards.iter_mut().zip(&trace.header.cards) {
        let config = CardConfig {
            mac: known.mac,
            vectors: known.vectors,
            max_sfs: known.max_sfs,
            log_sf_window: known.log_sf_window,
            sf_base: known.sf_base,
            far: Far::None,
            ..CardConfig::default()
        };
        // A file may say anything.
        if config.check().is_ok() {
            *c = config;
        }
    }
    let cable = match trace.header.cards.first() {
        Some(c) => c.wire == "cable",
        None => count == 2,
    };
    for (i, c) in cards.iter_mut().enumerate() {
        let wire = trace.header.cards.get(i).map_or("", |c| c.wire.as_str());
        c.far = match wire {
            _ if cable && count == 2 => Far::Port(1 - i),
            "loopback" => Far::Loopback,
            "none" => Far::None,
            // Something outside; the replay has its own.
            _ => Far::Port(usize::MAX),
        };
    }
    cards
}

/// The value that is there most often; one that is there once does not count.
fn most<T: Ord + Copy>(votes: &[T]) -> Option<T> {
    let mut count: BTreeMap<T, usize> = BTreeMap::new();
    for v in votes {
        *count.entry(*v).or_default() += 1;
    }
    let best = count.into_iter().max_by_key(|(_, n)| *n);
    best.filter(|(_, n)| *n > 1).map(|(v, _)| v)
}

fn card(trace: &Trace, index: usize) -> CardConfig {
    let mut config = CardConfig::default();
    config.mac[5] = index as u8;
    let (mut macs, mut bases, mut sfs, mut windows) = (vec![], vec![], vec![], vec![]);
    let mut vector = 0;
    let mut caps = false;
    for (_, c) in trace.commands().filter(|(e, _)| usize::from(e.card) == index && e.function == 0) {
        let (input, output) = (c.input(), c.output());
        let other = bits(&input, 64, 1) == 1;
        match c.opcode() {
            Opcode::QUERY_NIC_VPORT_CONTEXT if !other => {
                walk(&input, Side::Output, &output, |leaf, block| {
                    if leaf.path.ends_with("permanent_address.mac_addr_31_0") {
                        macs.push(bits(block, leaf.bit - 16, 48));
                    }
                });
            }
            Opcode::SET_L2_TABLE_ENTRY => macs.push(bits(&input, 0x22 * 8, 48)),
            Opcode::QUERY_HCA_CAP if !other && c.status() == 0 => {
                caps = true;
                walk(&input, Side::Output, &output, |leaf, block| {
                    let v = || bits(block, leaf.bit, leaf.width);
                    match leaf.name {
                        "sf_base_id" | "esw_sf_base_id" => bases.push(v()),
                        "max_num_sf" => sfs.push(v()),
                        "log_min_sf_size" => windows.push(v()),
                        _ => {}
                    }
                });
            }
            Opcode::CREATE_EQ => walk(&input, Side::Input, &input, |leaf, block| {
                if leaf.name == "intr" {
                    vector = vector.max(bits(block, leaf.bit, leaf.width));
                }
            }),
            _ => {}
        }
    }
    let mut better = config.clone();
    if let Some(mac) = most(&macs) {
        better.mac.copy_from_slice(&mac.to_be_bytes()[2..]);
    }
    if let Some(n) = most(&bases) {
        better.sf_base = n as u16;
    }
    if let Some(n) = most(&sfs) {
        better.max_sfs = n.next_power_of_two().min(256) as u16;
    }
    if let Some(n) = most(&windows) {
        better.log_sf_window = (n as u32 + 12).min(24);
    }
    if better.check().is_ok() && caps {
        config = better;
    }
    if vector >= u64::from(config.vectors) {
        config.vectors = sfnic_device_model::pci::MSIX_MAX;
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_vote_is_none() {
        assert_eq!(most(&[1]), None);
        assert_eq!(most(&[1, 2, 1]), Some(1));
        assert_eq!(most::<u64>(&[]), None);
    }
}
