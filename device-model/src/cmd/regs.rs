//! ACCESS_REG: registers of the port, its module and the device.
//!
//! [`REGISTERS`] has one row a register. The port is shared by all functions of
//! a card: everybody reads it, the physical function alone changes it. What an
//! SF's driver writes of itself on every open (PAOS, PMTU) is accepted without
//! effect; what only its user asks for (link modes, pause) is refused.

use std::sync::atomic::Ordering::Relaxed;

use bitflags::bitflags;
use sfnic_firmware_cmds::layout::{Field, Info, Layout};
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Refusal, Status, Syndrome, View, ViewMut};

use super::regs_firmware;
use super::regs_mtu::{pmtu_read, pmtu_write};
use super::{Answer, Cx, ppcnt};
use crate::control::{After, PF};
use crate::fabric::port::Far;
use crate::unmodelled::Access;

/// What the driver can set of the port, beyond what the packet path reads
/// ([`crate::fabric::port::Port`]).
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct PortRegs {
    /// Flow control (PFCC).
    pub pause: Pause,
    /// Link modes (PTYS).
    pub link: LinkAdmin,
    /// Counters that were started again (PPCNT).
    pub cleared: ppcnt::Cleared,
}

type Read = fn(&mut Cx<'_>, &[u8], &mut [u8]) -> Answer;
type Write = fn(&mut Cx<'_>, &[u8]) -> Answer;

/// A register: what `sfnic list registers` shows, and its handlers.
#[derive(Debug, Clone, Copy)]
pub struct RegisterRow {
    /// The structure.
    pub layout: fn() -> Info,
    /// Id (`MLX5_REG_*`, `include/linux/mlx5/driver.h`).
    pub id: u16,
    /// The manual's name.
    pub name: &'static str,
    /// Bytes.
    pub size: usize,
    /// Bytes that older drivers know of it, and send.
    least: usize,
    /// Whether it can be written.
    pub writable: bool,
    read: Read,
    write: Write,
}

macro_rules! register {
    ($id:literal $name:literal $layout:ty, $read:expr $(, at_least $least:literal)?) => {
        register!(@row $id, $name, $layout, $read, false, |_, _| Err(READ_ONLY) $(, $least)?)
    };
    ($id:literal $name:literal $layout:ty, $read:expr, $write:expr) => {
        register!(@row $id, $name, $layout, $read, true, |cx, i| $write(cx, View::<$layout>::new(i)))
    };
    (@row $id:literal, $name:literal, $layout:ty, $read:expr, $writable:literal, $write:expr $(, $least:literal)?) => {
        RegisterRow {
            id: $id,
            name: $name,
            layout: <$layout as Layout>::info,
            size: <$layout as Layout>::SIZE,
            least: { let n = <$layout as Layout>::SIZE; $(let n = if $least < n { $least } else { n };)? n },
            writable: $writable,
            read: |cx, i, o| $read(cx, View::<$layout>::new(i), &mut ViewMut::<$layout>::new(o)),
            write: $write,
        }
    };
}

const READ_ONLY: Refusal = Refusal::param(Syndrome::REGISTER_READ_ONLY);

/// Every register that is modelled, by id. The queueing registers (QETCR,
/// QTCT, QPTS, QPDPM, DCBX), the buffers (PPTB, PBMC, SBPR, SBCM), FEC (PPLM),
/// PCMR, MPCNT, MPEIN and the time, reset and trace registers stand behind
/// capabilities that are not offered.
pub const REGISTERS: &[RegisterRow] = &[
    register!(0x5002 "PMLP" PmlpReg, pmlp_read),
    register!(0x5003 "PMTU" PmtuReg, pmtu_read, pmtu_write),
    register!(0x5004 "PTYS" PtysReg, ptys_read, ptys_write),
    register!(0x5006 "PAOS" PaosReg, paos_read, paos_write),
    register!(0x5007 "PFCC" PfccReg, pfcc_read, pfcc_write),
    register!(0x5008 "PPCNT" PpcntReg, ppcnt::read),
    register!(0x5031 "PDDR" PddrReg, pddr_read),
    register!(0x6001 "NODE_DESC" NodeDesc, regs_firmware::node_desc_read, regs_firmware::node_desc_write),
    // The host's byte order: nothing here depends on it.
    register!(0x7004 "HOST_ENDIANNESS" RegisterHostEndianness, |_, _, _| Ok(()), |_, _| Ok(())),
    // Older kernels end the register after twelve dwords of data.
    register!(0x9014 "MCIA" MciaReg, mcia_read, at_least 0x40),
    register!(0x9024 "MNVDA" MnvdaReg, mnvda_read),
    register!(0x9060 "MCQS" McqsReg, regs_firmware::mcqs_read),
    register!(0x9061 "MCQI" McqiReg, regs_firmware::mcqi_read),
    register!(0x907f "MCAM" McamReg, regs_firmware::mcam_read),
];

/// ACCESS_REG: op_mod 0 writes, 1 reads. A write answers with the register as
/// it is then.
///
/// Refuses a register that is not modelled, one that cannot be written, and
/// input or output shorter than the register.
pub fn access_register(
    cx: &mut Cx<'_>,
    i: View<'_, AccessRegisterIn>,
    o: &mut ViewMut<'_, AccessRegisterOut>,
) -> Answer {
    const WRITE: u16 = 0;
    const READ: u16 = 1;
    let id = i.get(AccessRegisterIn::register_id) as u16;
    let Some(row) = REGISTERS.iter().find(|r| r.id == id) else {
        cx.unmodelled(Access::Register(id));
        return Err(Refusal::param(Syndrome::REGISTER_UNMODELLED));
    };
    let (given, answer) =
        row.bound(i.tail(AccessRegisterIn::register_data), o.tail(AccessRegisterOut::register_data))?;
    match cx.op_mod {
        READ => {}
        WRITE => (row.write)(cx, given)?,
        _ => return Err(Refusal::param(Syndrome::OP_MOD)),
    }
    (row.read)(cx, given, answer)
}

impl RegisterRow {
    /// The register's bytes of both blocks.
    fn bound<'i, 'o>(&self, i: &'i [u8], o: &'o mut [u8]) -> Result<(&'i [u8], &'o mut [u8]), Refusal> {
        if i.len() < self.least {
            return Err(Refusal::new(Status::BadInputLen, Syndrome::INPUT_SHORT));
        }
        if o.len() < self.least {
            return Err(Refusal::new(Status::BadOutputLen, Syndrome::OUTPUT_SHORT));
        }
        // An answer may go on behind the fixed part (MCQI).
        let from = self.size.min(i.len());
        Ok((&i[..from], o))
    }
}

/// A card has one port, number 1.
pub(super) fn local_port<S: Layout>(i: View<'_, S>, f: Field<S>) -> Answer {
    if i.get(f) == 1 { Ok(()) } else { Err(Refusal::param(Syndrome::REGISTER_PORT)) }
}

pub(super) fn bad_value<T>() -> Result<T, Refusal> {
    Err(Refusal::param(Syndrome::REGISTER_VALUE))
}

// PAOS: administrative and operational state of the port.

const UP: u32 = 1;
const DOWN: u32 = 2;

fn paos_read(cx: &mut Cx<'_>, i: View<'_, PaosReg>, o: &mut ViewMut<'_, PaosReg>) -> Answer {
    local_port(i, PaosReg::local_port)?;
    let state = |up: bool| if up { UP } else { DOWN };
    o.set(PaosReg::local_port, 1);
    o.set(PaosReg::admin_status, state(cx.card.port.admin_up.load(Relaxed)));
    o.set(PaosReg::oper_status, state(cx.card.port.is_up()));
    // Every change of state is told.
    o.set(PaosReg::e, 1);
    Ok(())
}

/// The state that is asked for, where one is.
fn paos_wanted(i: View<'_, PaosReg>) -> Result<Option<bool>, Refusal> {
    if !i.is(PaosReg::ase) {
        return Ok(None);
    }
    match i.get(PaosReg::admin_status) {
        UP => Ok(Some(true)),
        DOWN => Ok(Some(false)),
        _ => bad_value(),
    }
}

fn paos_write(cx: &mut Cx<'_>, i: View<'_, PaosReg>) -> Answer {
    local_port(i, PaosReg::local_port)?;
    if let Some(up) = paos_wanted(i)?
        && cx.fid == PF
        && cx.card.port.admin_up.swap(up, Relaxed) != up
    {
        cx.ctl.after.push(After::PortChanged);
    }
    Ok(())
}

// PTYS: link modes. The extended ones belong to PCAM's ptys_extended_ethernet,
// which is not offered, and stay zero.

bitflags! {
    /// Link modes of a passive copper cable at a four-lane port
    /// (`enum mlx5e_link_mode`, `include/linux/mlx5/port.h`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
    #[serde(into = "u32", try_from = "u32")]
    pub struct LinkModes: u32 {
        /// 40GBASE-CR4.
        const CR4_40G = 1 << 6;
        /// 10GBASE-CR.
        const CR_10G = 1 << 12;
        /// 100GBASE-CR4.
        const CR4_100G = 1 << 20;
        /// 25GBASE-CR.
        const CR_25G = 1 << 27;
        /// 50GBASE-CR2.
        const CR2_50G = 1 << 30;
    }
}

impl From<LinkModes> for u32 {
    fn from(modes: LinkModes) -> Self {
        modes.bits()
    }
}

impl TryFrom<u32> for LinkModes {
    type Error = &'static str;

    fn try_from(bits: u32) -> Result<Self, Self::Error> {
        Self::from_bits(bits).filter(|m| !m.is_empty()).ok_or("no link mode, or one that is not known")
    }
}

impl LinkModes {
    /// Modes and their speeds in Gb/s, the fastest first.
    const SPEEDS: [(Self, u32); 5] =
        [(Self::CR4_100G, 100), (Self::CR2_50G, 50), (Self::CR4_40G, 40), (Self::CR_25G, 25), (Self::CR_10G, 10)];

    /// Those that are no faster, if there is one of just that speed in Gb/s.
    pub fn up_to(gbps: u32) -> Self {
        let known = Self::SPEEDS.iter().any(|s| s.1 == gbps);
        Self::SPEEDS.iter().filter(|s| known && s.1 <= gbps).map(|s| s.0).collect()
    }

    /// What a link comes up with when both ends offer these, and its speed in
    /// Gb/s.
    pub fn fastest(self) -> (Self, u32) {
        Self::SPEEDS.into_iter().find(|s| self.contains(s.0)).unwrap_or((Self::empty(), 0))
    }
}

/// What the user asked of the link. It is a label: no frame waits for it, and
/// the far end is taken to offer the same modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LinkAdmin {
    /// Modes that may be used; never none.
    pub modes: LinkModes,
    /// Negotiation is off.
    pub an_disabled: bool,
}

impl Default for LinkAdmin {
    fn default() -> Self {
        Self { modes: LinkModes::all(), an_disabled: false }
    }
}

/// PTYS proto_mask: Ethernet.
const ETHERNET: u32 = 4;

fn ptys_read(cx: &mut Cx<'_>, i: View<'_, PtysReg>, o: &mut ViewMut<'_, PtysReg>) -> Answer {
    local_port(i, PtysReg::local_port)?;
    let protocol = i.get(PtysReg::proto_mask);
    o.set(PtysReg::local_port, 1).set(PtysReg::proto_mask, protocol);
    // Asked for InfiniBand, an Ethernet port has nothing to offer.
    if protocol == ETHERNET {
        ptys_fill(LinkModes::up_to(cx.card.config.speed), &cx.ctl.port_regs.link, cx.card.port.is_up(), o);
    }
    Ok(())
}

fn ptys_fill(can: LinkModes, l: &LinkAdmin, up: bool, o: &mut ViewMut<'_, PtysReg>) {
    /// `enum mlx5_an_status`.
    const AN_UNAVAILABLE: u32 = 0;
    const AN_COMPLETE: u32 = 1;
    const AN_LINK_DOWN: u32 = 4;
    /// `MLX5E_PORT_DA`.
    const DIRECT_ATTACH: u32 = 7;
    o.set(PtysReg::an_disable_cap, 1).set(PtysReg::an_disable_admin, l.an_disabled.into());
    let modes = l.modes & can;
    o.set(PtysReg::eth_proto_capability, can.bits());
    o.set(PtysReg::eth_proto_admin, modes.bits());
    o.set(PtysReg::connector_type, DIRECT_ATTACH);
    let an = match (l.an_disabled, up) {
        (true, _) => AN_UNAVAILABLE,
        (false, true) => AN_COMPLETE,
        (false, false) => AN_LINK_DOWN,
    };
    o.set(PtysReg::an_status, an);
    if up {
        let (mode, gbps) = modes.fastest();
        o.set(PtysReg::eth_proto_oper, mode.bits());
        // In units of 100 Mb/s.
        o.set(PtysReg::data_rate_oper, gbps * 10);
        if !l.an_disabled {
            o.set(PtysReg::eth_proto_lp_advertise, modes.bits());
        }
    }
}

/// The link as it is asked for: of the modes those that there are, and at
/// least one.
fn ptys_wanted(can: LinkModes, i: View<'_, PtysReg>) -> Result<LinkAdmin, Refusal> {
    let modes = LinkModes::from_bits_truncate(i.get(PtysReg::eth_proto_admin)) & can;
    if i.get(PtysReg::proto_mask) != ETHERNET || i.is(PtysReg::ext_eth_proto_admin) || modes.is_empty() {
        return bad_value();
    }
    Ok(LinkAdmin { modes, an_disabled: i.is(PtysReg::an_disable_admin) })
}

fn ptys_write(cx: &mut Cx<'_>, i: View<'_, PtysReg>) -> Answer {
    local_port(i, PtysReg::local_port)?;
    if cx.fid != PF {
        return Err(READ_ONLY);
    }
    cx.ctl.port_regs.link = ptys_wanted(LinkModes::up_to(cx.card.config.speed), i)?;
    Ok(())
}

// PMLP: the port's four lanes, all of module 0.

fn pmlp_read(_: &mut Cx<'_>, i: View<'_, PmlpReg>, o: &mut ViewMut<'_, PmlpReg>) -> Answer {
    local_port(i, PmlpReg::local_port)?;
    pmlp_fill(o);
    Ok(())
}

fn pmlp_fill(o: &mut ViewMut<'_, PmlpReg>) {
    use PmlpReg as R;
    let lanes = [R::lane0_module_mapping, R::lane1_module_mapping, R::lane2_module_mapping, R::lane3_module_mapping];
    o.set(PmlpReg::local_port, 1).set(PmlpReg::width, lanes.len() as u32);
    for (n, lane) in lanes.into_iter().enumerate() {
        let mut raw = [0; Lane2ModuleMapping::SIZE];
        let mut v = ViewMut::<Lane2ModuleMapping>::new(&mut raw);
        v.set(Lane2ModuleMapping::tx_lane, n as u32).set(Lane2ModuleMapping::rx_lane, n as u32);
        o.set(lane, u32::from_be_bytes(raw));
    }
}

// PFCC: flow control. Kept as set; the model sends no pause frames and obeys
// none, so the counters of it stay zero.

/// Flow control as the driver set it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pause {
    /// Pause frames may be sent.
    pub tx: bool,
    /// Pause frames are obeyed.
    pub rx: bool,
    /// Priority flow control is sent for these priorities (bit n: priority n).
    pub pfc_tx: u8,
    /// Priority flow control is obeyed for these priorities.
    pub pfc_rx: u8,
}

impl Pause {
    fn fill(&self, o: &mut ViewMut<'_, PfccReg>) {
        o.set(PfccReg::local_port, 1);
        o.set(PfccReg::pptx, self.tx.into()).set(PfccReg::pprx, self.rx.into());
        o.set(PfccReg::pfctx, self.pfc_tx.into()).set(PfccReg::pfcrx, self.pfc_rx.into());
    }

    fn with(mut self, i: View<'_, PfccReg>) -> Self {
        if !i.is(PfccReg::pptx_mask_n) {
            self.tx = i.is(PfccReg::pptx);
        }
        if !i.is(PfccReg::pprx_mask_n) {
            self.rx = i.is(PfccReg::pprx);
        }
        let merge = |old: u8, new: u32, mask: u32| (old & !(mask as u8)) | (new & mask) as u8;
        self.pfc_tx = merge(self.pfc_tx, i.get(PfccReg::pfctx), i.get(PfccReg::prio_mask_tx));
        self.pfc_rx = merge(self.pfc_rx, i.get(PfccReg::pfcrx), i.get(PfccReg::prio_mask_rx));
        self
    }
}

fn pfcc_read(cx: &mut Cx<'_>, i: View<'_, PfccReg>, o: &mut ViewMut<'_, PfccReg>) -> Answer {
    local_port(i, PfccReg::local_port)?;
    cx.ctl.port_regs.pause.fill(o);
    Ok(())
}

fn pfcc_write(cx: &mut Cx<'_>, i: View<'_, PfccReg>) -> Answer {
    local_port(i, PfccReg::local_port)?;
    if cx.fid != PF {
        return Err(READ_ONLY);
    }
    cx.ctl.port_regs.pause = cx.ctl.port_regs.pause.with(i);
    Ok(())
}

// PDDR: why there is no link (`ethtool DEV` of a netdev without carrier).

fn pddr_read(cx: &mut Cx<'_>, i: View<'_, PddrReg>, o: &mut ViewMut<'_, PddrReg>) -> Answer {
    const TROUBLESHOOTING: u32 = 1;
    const MONITOR: u32 = 0;
    local_port(i, PddrReg::local_port)?;
    if (i.get(PddrReg::page_select), i.get(PddrReg::group_opcode)) != (TROUBLESHOOTING, MONITOR) {
        return bad_value();
    }
    let port = &cx.card.port;
    let why = no_link_reason(&port.far, port.admin_up.load(Relaxed), port.is_up());
    o.set(PddrReg::local_port, 1).set(PddrReg::page_select, TROUBLESHOOTING);
    o.set(PddrReg::group_opcode, MONITOR).set(PddrReg::monitor_opcode, why);
    Ok(())
}

/// Monitor opcode (`mlx5e_link_ext_state_opcode_map`, `en_ethtool.c`).
const fn no_link_reason(far: &Far, admin_up: bool, up: bool) -> u32 {
    match (up, admin_up, far) {
        // No issue; closed by command; no cable; no partner found.
        (true, _, _) => 0,
        (false, false, _) => 1,
        (false, true, Far::None) => 1024,
        (false, true, _) => 2,
    }
}

// MCIA: the module's memory. There is none to read: `ethtool -m` fails with an
// I/O error. The command itself succeeds, so that the kernel logs nothing.

fn mcia_read(cx: &mut Cx<'_>, i: View<'_, MciaReg>, o: &mut ViewMut<'_, MciaReg>) -> Answer {
    /// The module does not answer on its management bus.
    const NO_EEPROM: u32 = 1;
    /// No module is plugged.
    const NO_MODULE: u32 = 3;
    let module = i.get(MciaReg::module);
    let plugged = module == 0 && !matches!(cx.card.port.far, Far::None);
    o.set(MciaReg::module, module).set(MciaReg::status, if plugged { NO_EEPROM } else { NO_MODULE });
    Ok(())
}

// MNVDA: settings that outlive a power cycle (`devlink dev param`). All are
// zero and cannot be changed: no virtual functions, balanced CQE compression,
// the default software-parser checksum.

/// Items that exist: class, parameter.
const NV_ITEMS: [(u32, u32); 6] = [(0, 0x80), (0, 0x81), (0, 0x10a), (0, 0x10b), (0, 0x11d), (3, 0x80)];

fn mnvda_read(_: &mut Cx<'_>, i: View<'_, MnvdaReg>, o: &mut ViewMut<'_, MnvdaReg>) -> Answer {
    const PER_HOST_PF: u32 = 3;
    let class = i.get(MnvdaReg::type_class);
    let parameter = if class == PER_HOST_PF { MnvdaReg::pf_parameter_index } else { MnvdaReg::parameter_index };
    if !NV_ITEMS.contains(&(class, i.get(parameter))) {
        return bad_value();
    }
    for f in [MnvdaReg::access_mode, MnvdaReg::length, MnvdaReg::type_class, MnvdaReg::parameter_index] {
        o.set(f, i.get(f));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_in_order_and_as_long_as_the_kernel_says() {
        assert!(REGISTERS.is_sorted_by_key(|r| r.id));
        let sizes: Vec<usize> = REGISTERS.iter().map(|r| r.size).collect();
        assert_eq!(sizes, [0x40, 0x10, 0x40, 0x10, 0x20, 0x100, 0x100, 0x40, 0x10, 0x90, 0x10c, 0x10, 0x18, 0x48]);
        let writable: Vec<&str> = REGISTERS.iter().filter(|r| r.writable).map(|r| r.name).collect();
        assert_eq!(writable, ["PMTU", "PTYS", "PAOS", "PFCC", "NODE_DESC", "HOST_ENDIANNESS"]);
    }

    #[test]
    fn input_is_cut_to_the_register_and_neither_block_may_be_shorter() {
        let row = REGISTERS.iter().find(|r| r.name == "PAOS").unwrap();
        let mcia = REGISTERS.iter().find(|r| r.name == "MCIA").unwrap();
        let (i, mut o) = ([0; 0x40], [0; 0x40]);
        for (row, want) in [(row, 0x10), (mcia, 0x40)] {
            let (a, b) = row.bound(&i, &mut o).unwrap();
            assert_eq!((a.len(), b.len()), (want, 0x40));
        }
        assert_eq!(row.bound(&i[..0xf], &mut o).unwrap_err().status, Status::BadInputLen);
        assert_eq!(row.bound(&i, &mut o[..0xf]).unwrap_err().status, Status::BadOutputLen);
    }

    #[test]
    fn there_is_one_local_port() {
        for n in 0..=255u8 {
            let raw = [0, n, 0, 0];
            assert_eq!(local_port(View::<PaosReg>::new(&raw), PaosReg::local_port).is_ok(), n == 1);
        }
    }

    #[test]
    fn paos_changes_the_state_only_where_selected() {
        let wanted = |ase, status| {
            let mut raw = [0; 16];
            ViewMut::<PaosReg>::new(&mut raw).set(PaosReg::ase, ase).set(PaosReg::admin_status, status);
            paos_wanted(View::new(&raw))
        };
        assert_eq!((wanted(1, UP), wanted(1, DOWN), wanted(0, UP)), (Ok(Some(true)), Ok(Some(false)), Ok(None)));
        assert_eq!((wanted(1, 0), wanted(1, 15)), (bad_value(), bad_value()));
    }

    fn ptys(l: &LinkAdmin, up: bool) -> [u8; 0x40] {
        let mut raw = [0; 0x40];
        ptys_fill(LinkModes::all(), l, up, &mut ViewMut::new(&mut raw));
        raw
    }

    #[test]
    fn a_slower_port_has_the_slower_modes_only() {
        for (gbps, modes) in [(10, 1 << 12), (25, 1 << 12 | 1 << 27), (100, LinkModes::all().bits())] {
            assert_eq!(LinkModes::up_to(gbps).bits(), modes);
        }
        assert!(LinkModes::up_to(1).is_empty() && LinkModes::up_to(99).is_empty());
        let mut raw = [0; 0x40];
        ptys_fill(LinkModes::up_to(25), &LinkAdmin::default(), true, &mut ViewMut::new(&mut raw));
        let v = View::<PtysReg>::new(&raw);
        assert_eq!((v.get(PtysReg::eth_proto_oper), v.get(PtysReg::data_rate_oper)), (1 << 27, 250));
        assert_eq!(v.get(PtysReg::eth_proto_capability), v.get(PtysReg::eth_proto_admin));
    }

    #[test]
    fn a_link_is_100_gigabit_copper_until_told_otherwise() {
        let raw = ptys(&LinkAdmin::default(), true);
        let v = View::<PtysReg>::new(&raw);
        // MLX5E_100GBASE_CR4 alone: RDMA takes exactly one mode.
        assert_eq!(v.get(PtysReg::eth_proto_oper), 1 << 20);
        assert_eq!(v.get(PtysReg::data_rate_oper), 1000);
        assert_eq!(v.get(PtysReg::eth_proto_admin), v.get(PtysReg::eth_proto_capability));
        assert_eq!(v.get(PtysReg::ext_eth_proto_capability), 0);
        let down = ptys(&LinkAdmin::default(), false);
        assert_eq!(View::<PtysReg>::new(&down).get(PtysReg::eth_proto_oper), 0);
    }

    #[test]
    fn a_subset_of_the_modes_can_be_chosen() {
        let set = |modes: u32, ext: u32, proto: u32| {
            let mut raw = [0; 0x40];
            let mut v = ViewMut::<PtysReg>::new(&mut raw);
            v.set(PtysReg::proto_mask, proto).set(PtysReg::an_disable_admin, 1);
            v.set(PtysReg::eth_proto_admin, modes).set(PtysReg::ext_eth_proto_admin, ext);
            ptys_wanted(LinkModes::all(), View::new(&raw))
        };
        let l = set(1 << 27 | 1 << 3, 0, ETHERNET).unwrap();
        assert_eq!(l, LinkAdmin { modes: LinkModes::CR_25G, an_disabled: true });
        let raw = ptys(&l, true);
        let v = View::<PtysReg>::new(&raw);
        assert_eq!((v.get(PtysReg::eth_proto_oper), v.get(PtysReg::data_rate_oper)), (1 << 27, 250));
        assert_eq!(v.get(PtysReg::eth_proto_capability), LinkModes::all().bits());
        assert_eq!(set(1 << 3, 0, ETHERNET), bad_value());
        assert_eq!(set(1 << 20, 1 << 9, ETHERNET), bad_value());
        assert_eq!(set(1 << 20, 0, 1), bad_value());
    }

    #[test]
    fn lanes_are_those_of_one_module() {
        let mut raw = [0; 0x40];
        pmlp_fill(&mut ViewMut::new(&mut raw));
        assert_eq!(View::<PmlpReg>::new(&raw).get(PmlpReg::width), 4);
        let lane = View::<Lane2ModuleMapping>::new(&raw[0x10..]);
        assert_eq!(lane.get(Lane2ModuleMapping::tx_lane), 3);
        assert_eq!(lane.get(Lane2ModuleMapping::rx_lane), 3);
        assert_eq!(lane.get(Lane2ModuleMapping::module), 0);
    }

    #[test]
    fn pause_reads_back_and_masks_select_what_changes() {
        let write = |p: Pause, set: &dyn Fn(&mut ViewMut<'_, PfccReg>)| {
            let mut raw = [0; 0x20];
            set(&mut ViewMut::new(&mut raw));
            p.with(View::new(&raw))
        };
        // mlx5_set_port_pause.
        let p = write(Pause::default(), &|v| {
            v.set(PfccReg::pptx, 1);
        });
        assert_eq!(p, Pause { tx: true, ..Pause::default() });
        // mlx5_set_port_stall_watermark leaves all of it alone.
        let q = write(p, &|v| {
            v.set(PfccReg::pptx_mask_n, 1).set(PfccReg::pprx_mask_n, 1);
        });
        assert_eq!(p, q);
        // mlx5_set_port_pfc takes the place of global pause.
        let q = write(p, &|v| {
            v.set(PfccReg::pfctx, 0x18).set(PfccReg::prio_mask_tx, 0xff);
            v.set(PfccReg::pfcrx, 0x18).set(PfccReg::prio_mask_rx, 0x0f);
        });
        assert_eq!(q, Pause { tx: false, rx: false, pfc_tx: 0x18, pfc_rx: 0x08 });
        let mut raw = [0; 0x20];
        q.fill(&mut ViewMut::new(&mut raw));
        assert_eq!(View::<PfccReg>::new(&raw).get(PfccReg::pfctx), 0x18);
    }

    #[test]
    fn a_missing_link_has_a_reason_that_ethtool_knows() {
        assert_eq!(no_link_reason(&Far::None, true, false), 1024);
        assert_eq!(no_link_reason(&Far::Loopback, true, false), 2);
        assert_eq!(no_link_reason(&Far::None, false, false), 1);
        assert_eq!(no_link_reason(&Far::Loopback, true, true), 0);
    }
}
