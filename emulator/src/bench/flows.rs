//! Many flows from one sub-function to another, each by a rule of its own.

use anyhow::Context as _;
use clap::ValueEnum;
use sfnic_firmware_cmds::layout::ViewMut;
use sfnic_firmware_cmds::layouts::{FteMatchParam, FteMatchSetLyr24 as Headers, FteMatchSetMisc as Misc};
use sfnic_test_driver::frames::Flow4;
use sfnic_test_driver::steering::{criteria, table_type};
use sfnic_test_driver::{Destination, Flow, Function, Table};

use super::lane::Names;

/// Most masks: sets of this many further fields.
pub(super) const MAX_MASKS: u32 = 1 << EXTRA;
const EXTRA: u32 = 5;
/// Length of the sequence in which flows send, which repeats; at least twice
/// the number of flows.
const SEQUENCE: usize = 1 << 16;

/// Which flows send how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Skew {
    /// All alike, in random order.
    Uniform,
    /// The n-th flow 1/n as often as the first.
    Zipf,
}

/// Addresses and ports of flow `n`.
pub(super) fn flow(n: u32, names: &Names) -> Flow4 {
    let [_, a, b, c] = n.to_be_bytes();
    let port = 1024 + (n.wrapping_mul(2_654_435_761) >> 20) as u16;
    Flow4 { mac: names.mac, ip: [[10, a, b, c], [11, c, b, a]], port: [port, 53_000] }
}

/// The sequence of flows that frames belong to.
pub(super) fn sequence(flows: u32, skew: Skew) -> Vec<u32> {
    let n = (2 * flows as usize).max(SEQUENCE);
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut shares: Vec<f64> = Vec::new();
    if skew == Skew::Zipf {
        let mut sum = 0.0;
        shares.extend((1..=flows).map(|i| {
            sum += 1.0 / f64::from(i);
            sum
        }));
    }
    let all = shares.last().copied().unwrap_or(0.0);
    let mut pick = || match skew {
        Skew::Uniform => (random() % u64::from(flows.max(1))) as u32,
        Skew::Zipf => {
            let at = random() as f64 / u64::MAX as f64 * all;
            shares.partition_point(|s| *s < at).min(flows as usize - 1) as u32
        }
    };
    (0..n).map(|_| pick()).collect()
}

/// Rules of flows.
pub(super) struct Rules {
    table: Table,
    groups: Vec<Group>,
    /// Entries of a group.
    each: u32,
    /// A counter for each index.
    counters: Vec<u32>,
    bulks: Vec<u32>,
}

/// A group of rules with one mask.
struct Group {
    id: u32,
    free: Vec<u32>,
}

/// Which flow a mask looks at beside the 5-tuple: bit `i` is field `i`.
fn extra(h: &mut ViewMut<'_, Headers>, mask: u32, value: Option<&Flow4>) {
    let low = |mac: [u8; 6]| u32::from(u16::from_be_bytes([mac[4], mac[5]]));
    let fields = [
        (Headers::dmac_15_0, value.map(|f| low(f.mac[0]))),
        (Headers::smac_15_0, value.map(|f| low(f.mac[1]))),
        (Headers::ttl_hoplimit, value.map(|_| 64)),
        (Headers::ip_dscp, value.map(|_| 0)),
        (Headers::frag, value.map(|_| 0)),
    ];
    for (i, (field, value)) in fields.into_iter().enumerate() {
        if mask >> i & 1 == 1 {
            h.set(field, value.unwrap_or(field.max()));
        }
    }
}

fn five_tuple(p: &mut ViewMut<'_, FteMatchParam>, mask: u32, vport: Option<u16>, value: Option<&Flow4>) {
    p.sub(FteMatchParam::misc_parameters).set(Misc::source_port, vport.map_or(Misc::source_port.max(), u32::from));
    let mut h = p.sub(FteMatchParam::outer_headers);
    h.set(Headers::ip_version, value.map_or(Headers::ip_version.max(), |_| 4));
    h.set(Headers::ip_protocol, value.map_or(Headers::ip_protocol.max(), |_| 17));
    h.set(Headers::udp_sport, value.map_or(Headers::udp_sport.max(), |f| f.port[0].into()));
    h.set(Headers::udp_dport, value.map_or(Headers::udp_dport.max(), |f| f.port[1].into()));
    let ip = |i: usize| value.map_or([0xff; 4], |f| f.ip[i]);
    for (field, v) in [(Headers::src_ipv4_src_ipv6, ip(0)), (Headers::dst_ipv4_dst_ipv6, ip(1))] {
        let mut all = [0; 16];
        all[12..].copy_from_slice(&v);
        h.set_bytes(field, &all);
    }
    extra(&mut h, mask, value);
}

/// Bulks of counters, as they are asked for.
const BULK: u32 = 4;

impl Rules {
    /// An FDB with room for so many flows' rules, with a counter for each.
    pub(super) fn new(pf: &Function, room: u32, masks: u32) -> anyhow::Result<Self> {
        let each = room.div_ceil(masks);
        let log_size = (each * masks).next_power_of_two().ilog2().max(4);
        let table = pf.create_table(table_type::FDB, None, 0, log_size).context("the FDB")?;
        let mut groups = vec![];
        for m in 0..masks {
            let range = (m * each, (m + 1) * each - 1);
            let group =
                pf.create_group(table, range, criteria::OUTER | criteria::MISC, |p| five_tuple(p, m, None, None));
            let free = (range.0..=range.1).rev().collect();
            groups.push(Group { id: group.context("a flow group")?, free });
        }
        pf.set_root(table).context("the FDB's root")?;
        let mut counters = vec![];
        let mut bulks = vec![];
        while counters.len() < room as usize {
            let first = pf.alloc_flow_counters(BULK).context("flow counters")?;
            bulks.push(first);
            counters.extend(first..first + BULK * 128);
        }
        Ok(Self { table, groups, each, counters, bulks })
    }

    /// Adds the rule of flow `n` of a sender; its index.
    pub(super) fn add(&mut self, pf: &Function, names: &Names, n: u32) -> anyhow::Result<u32> {
        let m = n % self.groups.len() as u32;
        let group = &mut self.groups[m as usize];
        let index = group.free.pop().context("a free index")?;
        let rule = Flow {
            to: vec![Destination::Vport(names.vports[1])],
            counters: vec![self.counters[index as usize]],
            ..Flow::default()
        };
        let f = flow(n, names);
        let value = |p: &mut ViewMut<'_, FteMatchParam>| five_tuple(p, m, Some(names.vports[0]), Some(&f));
        pf.create_entry(self.table, group.id, index, &rule, value).context("a rule")?;
        Ok(index)
    }

    /// Deletes a rule by its index.
    pub(super) fn delete(&mut self, pf: &Function, index: u32) -> anyhow::Result<()> {
        pf.delete_entry(self.table, index).context("a rule to delete")?;
        self.groups[(index / self.each) as usize].free.push(index);
        Ok(())
    }

    /// Frames that the rules' counters counted.
    pub(super) fn counted(&self, pf: &Function) -> anyhow::Result<u64> {
        let mut sum = 0;
        for first in &self.bulks {
            sum += pf.flow_counters(*first, BULK * 128)?.iter().map(|(packets, _)| packets).sum::<u64>();
        }
        Ok(sum)
    }
}
