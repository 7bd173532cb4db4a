//! A command's bytes, field by field: the layouts of its row, with what the
//! layouts leave open (capability groups, access registers, lists) resolved
//! by what the command itself says.

use sfnic_firmware_cmds::layout::{FieldInfo, Info, Kind, Layout, View};
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::opcode::Opcode;
use sfnic_firmware_cmds::profile;

use super::{regs, table};

/// Which half of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What the driver sends.
    Input,
    /// What the device answers.
    Output,
}

/// A field that holds bits of its own.
#[derive(Debug, Clone, Copy)]
pub struct Leaf<'a> {
    /// Name with those of the structures around it, `ctx.wq.pd`.
    pub path: &'a str,
    /// The last part of the name; of an element of a list, the list's.
    pub name: &'static str,
    /// The kernel's name of the structure that has the field.
    pub of: &'static str,
    /// Offset in the command in bits.
    pub bit: usize,
    /// Width in bits; more than 64 is a run of bytes.
    pub width: usize,
    /// False where no layout names these bits.
    pub declared: bool,
}

impl Leaf<'_> {
    /// The field's value, where it has at most 64 bits.
    pub fn value(&self, block: &[u8]) -> Option<u64> {
        (self.width <= 64).then(|| bits(block, self.bit, self.width))
    }

    /// The field's bytes, where it is a run of them.
    pub fn bytes<'b>(&self, block: &'b [u8]) -> &'b [u8] {
        let from = (self.bit / 8).min(block.len());
        &block[from..(from + self.width / 8).min(block.len())]
    }
}

/// Up to 64 bits of a block, most significant first; zero past its end.
pub fn bits(block: &[u8], bit: usize, width: usize) -> u64 {
    let mut value = 0;
    let (mut at, end) = (bit, bit + width.min(64));
    while at < end {
        let take = (8 - at % 8).min(end - at);
        let byte = u64::from(block.get(at / 8).copied().unwrap_or(0));
        value = value << take | (byte >> (8 - at % 8 - take)) & ((1 << take) - 1);
        at += take;
    }
    value
}

/// Replaces up to 64 bits of a block; what lies past its end is dropped.
pub fn set_bits(block: &mut [u8], bit: usize, width: usize, value: u64) {
    let width = width.min(64);
    for i in 0..width {
        let at = bit + i;
        let one = value >> (width - 1 - i) & 1 == 1;
        if let Some(b) = block.get_mut(at / 8) {
            let mask = 0x80 >> (at % 8);
            *b = if one { *b | mask } else { *b & !mask };
        }
    }
}

/// Calls `each` for every field of one half of a command, in the order of the
/// layouts, and then for the bits that none of them names, a dword at a time.
/// Where fields share bits, the first one has them. `input` decides what is
/// open, and `block` is the half that is looked at: of its length, nothing
/// is believed that does not lie in it.
pub fn walk(input: &[u8], side: Side, block: &[u8], mut each: impl FnMut(&Leaf<'_>, &[u8])) {
    let mut w = Walk { input, block, side, path: String::new(), seen: vec![false; block.len() * 8], each: &mut each };
    if let Some(row) = table::find(w.opcode()) {
        let shape = if side == Side::Input { row.input } else { row.output };
        w.structure(&shape.info(), 0);
    }
    w.rest();
}

struct Walk<'a> {
    input: &'a [u8],
    block: &'a [u8],
    side: Side,
    path: String,
    seen: Vec<bool>,
    each: &'a mut dyn FnMut(&Leaf<'_>, &[u8]),
}

/// A field's owner and name, for those of a list.
type Named = (&'static str, &'static str);

impl Walk<'_> {
    fn opcode(&self) -> Opcode {
        Opcode(bits(self.input, 0, 16) as u16)
    }

    fn op_mod(&self) -> u16 {
        bits(self.input, 48, 16) as u16
    }

    fn within<R>(&mut self, name: &str, index: Option<usize>, work: impl FnOnce(&mut Self) -> R) -> R {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        if let Some(i) = index {
            self.path.push_str(&format!("[{i}]"));
        }
        let done = work(self);
        self.path.truncate(before);
        done
    }

    fn structure(&mut self, info: &Info, base: usize) {
        for f in info.fields {
            let bit = base + f.bit as usize;
            if bit >= self.block.len() * 8 {
                continue;
            }
            let named = (info.name, f.name);
            match (f.kind, f.sub) {
                (Kind::Tail, _) => self.within(f.name, None, |w| w.tail(named, f, base, bit)),
                (_, Some(sub)) => {
                    let sub = sub();
                    let count = f.count.max(1) as usize;
                    for i in 0..count {
                        let index = (count > 1).then_some(i);
                        self.within(f.name, index, |w| w.structure(&sub, bit + i * sub.size * 8));
                    }
                }
                _ => self.within(f.name, None, |w| w.leaf(named, bit, f.width as usize, true)),
            }
        }
    }

    fn leaf(&mut self, (of, name): Named, bit: usize, width: usize, declared: bool) {
        let end = (bit + width).min(self.seen.len());
        let Some(mine) = self.seen.get_mut(bit..end).filter(|s| s.iter().any(|b| !b)) else { return };
        mine.fill(true);
        (self.each)(&Leaf { path: &self.path, name, of, bit, width: end - bit, declared }, self.block);
    }

    /// A list of structures of one kind, as many as `count` and the block say.
    fn list(&mut self, info: &Info, bit: usize, count: usize) -> usize {
        let room = (self.seen.len().saturating_sub(bit)) / (info.size.max(1) * 8);
        let count = count.min(room);
        let name = std::mem::take(&mut self.path);
        for i in 0..count {
            self.path = format!("{name}[{i}]");
            self.structure(info, bit + i * info.size * 8);
        }
        self.path = name;
        bit + count * info.size * 8
    }

    /// A list of plain values.
    fn values(&mut self, named: Named, bit: usize, width: usize, count: usize) {
        let count = count.min(self.seen.len().saturating_sub(bit) / width);
        let name = std::mem::take(&mut self.path);
        for i in 0..count {
            self.path = format!("{name}[{i}]");
            self.leaf(named, bit + i * width, width, true);
        }
        self.path = name;
    }

    /// What the list at the end of a structure holds.
    fn tail(&mut self, named: Named, f: &FieldInfo, base: usize, bit: usize) {
        let at = |b: usize, n: usize| bits(self.block, base + b, n) as usize;
        match named {
            (_, "capability") => {
                let group = profile::GROUPS.iter().find(|g| g.id == self.op_mod() >> 1);
                if let Some(g) = group {
                    self.within(g.key, None, |w| w.structure(&(g.layout)(), bit));
                }
            }
            (_, "register_data") => {
                let id = View::<AccessRegisterIn>::new(self.input).get(AccessRegisterIn::register_id) as u16;
                if let Some(r) = regs::REGISTERS.iter().find(|r| r.id == id) {
                    self.within(r.name, None, |w| w.structure(&(r.layout)(), bit));
                }
            }
            ("ppcnt_reg", "counter_set") => {
                // Registers stand at the same place in both halves.
                let group: Option<fn() -> Info> = match bits(self.input, base + 26, 6) {
                    0x00 => Some(Eth8023CntrsGrpDataLayout::info),
                    0x01 => Some(Eth2863CntrsGrpDataLayout::info),
                    0x02 => Some(Eth2819CntrsGrpDataLayout::info),
                    0x03 => Some(Eth3635CntrsGrpDataLayout::info),
                    0x05 => Some(EthExtendedCntrsGrpDataLayout::info),
                    0x10 => Some(EthPerPrioGrpDataLayout::info),
                    0x11 => Some(EthPerTcPrioGrpDataLayout::info),
                    0x12 => Some(PhysLayerCntrs::info),
                    0x13 => Some(EthPerTcCongestPrioGrpDataLayout::info),
                    0x16 => Some(PhysLayerStatisticalCntrs::info),
                    0x20 => Some(IbPortCntrsGrpDataLayout::info),
                    _ => None,
                };
                if let Some(g) = group {
                    self.structure(&g(), bit);
                }
            }
            ("flow_context", "destination") => {
                // FlowContext: extended_destination, the two list sizes.
                let (extended, destinations, counters) = (at(0x80, 1), at(0x88, 24), at(0xa8, 24));
                let shape = if extended == 1 { ExtendedDestFormat::info() } else { DestFormatStruct::info() };
                let next = self.list(&shape, bit, destinations);
                self.list(&FlowCounterList::info(), next, counters);
            }
            ("alloc_modify_header_context_in", _) => {
                let count = at(0x78, 8).min(self.seen.len().saturating_sub(bit) / 64);
                let name = std::mem::take(&mut self.path);
                for i in 0..count {
                    let here = bit + i * 64;
                    self.path = format!("{name}[{i}]");
                    let shape = match bits(self.block, here, 4) {
                        1 => SetActionIn::info(),
                        2 => AddActionIn::info(),
                        _ => CopyActionIn::info(),
                    };
                    self.structure(&shape, here);
                }
                self.path = name;
            }
            ("query_flow_counter_out", _) => {
                self.list(&TrafficCounter::info(), bit, usize::MAX);
            }
            ("query_esw_functions_out", _) => {
                self.list(&HostParamsContext::info(), bit, 1);
            }
            ("nic_vport_context", _) => {
                let count = at(0xf0 * 8 + 16, 12);
                self.list(&MacAddressLayout::info(), bit, count);
            }
            ("mcqi_reg", "data") => self.structure(&McqiVersion::info(), bit),
            ("rqtc", "rq_num") => {
                let count = at(0x18 * 8 + 16, 16);
                if at(0x18 * 8, 1) == 0 {
                    self.values(named, bit, 32, count);
                }
            }
            ("rqtc", "rq_vhca") | ("fte_match_param", _) => {}
            (_, "pas" | "klm_pas_mtt" | "mtt") => self.values(named, bit, 64, usize::MAX),
            _ if f.width >= 32 => self.values(named, bit, f.width as usize, usize::MAX),
            _ => {
                let room = (self.seen.len() - bit) / 8 * 8;
                self.leaf(named, bit, room, true);
            }
        }
    }

    /// What nothing named.
    fn rest(&mut self) {
        let side = if self.side == Side::Input { "input" } else { "output" };
        let mut at = 0;
        while at < self.seen.len() {
            let end = (at / 32 * 32 + 32).min(self.seen.len());
            let from = (at..end).find(|b| !self.seen[*b]);
            let Some(from) = from else {
                at = end;
                continue;
            };
            let to = (from..end).find(|b| self.seen[*b]).unwrap_or(end);
            self.path = format!("reserved_at_{from:x}");
            self.leaf((side, "reserved"), from, to - from, false);
            self.path.clear();
            at = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_read_and_written_across_bytes() {
        let mut b = [0u8; 12];
        set_bits(&mut b, 13, 22, 0x2a_5a5a);
        assert_eq!(bits(&b, 13, 22), 0x2a_5a5a);
        assert_eq!(bits(&b, 0, 13), 0);
        set_bits(&mut b, 32, 64, u64::MAX - 1);
        assert_eq!(bits(&b, 32, 64), u64::MAX - 1);
        assert_eq!(bits(&b, 95, 4), 0, "past the end reads as zero");
    }

    /// Every bit of both halves of every command belongs to exactly one field,
    /// whatever the bytes say.
    #[test]
    fn every_bit_is_met_once() {
        for row in table::ROWS {
            for fill in [0u8, 0xff, 0x5a] {
                let mut input = vec![fill; row.input.size() + 64];
                input[..2].copy_from_slice(&row.opcode.0.to_be_bytes());
                for (side, len) in [(Side::Input, input.len()), (Side::Output, row.output.size() + 72)] {
                    let block = if side == Side::Input { input.clone() } else { vec![fill; len] };
                    let mut last = 0;
                    let mut met = vec![false; len * 8];
                    walk(&input, side, &block, |leaf, _| {
                        let mine = &mut met[leaf.bit..leaf.bit + leaf.width];
                        assert!(mine.iter().any(|b| !b), "{} {}", row.opcode, leaf.path);
                        mine.fill(true);
                        last += 1;
                    });
                    assert!(last > 0 && met.iter().all(|b| *b), "{}", row.opcode);
                }
            }
        }
    }

    #[test]
    fn unions_have_the_names_of_what_they_hold() {
        let mut input = vec![0; 16];
        input[..2].copy_from_slice(&Opcode::QUERY_HCA_CAP.0.to_be_bytes());
        input[7] = 1;
        let mut names = vec![];
        walk(&input, Side::Output, &[0; 0x1010], |l, _| names.push(l.path.to_owned()));
        assert!(names.iter().any(|n| n == "capability.general.log_max_cq"));
        input[..2].copy_from_slice(&Opcode::ACCESS_REG.0.to_be_bytes());
        input[10..12].copy_from_slice(&0x5003u16.to_be_bytes());
        names.clear();
        walk(&input, Side::Output, &[0; 0x20], |l, _| names.push(l.path.to_owned()));
        assert!(names.iter().any(|n| n == "register_data.PMTU.max_mtu"), "{names:?}");
    }
}
