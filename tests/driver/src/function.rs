//! A function and its life cycle.

use std::cell::Cell;
use std::sync::Arc;

use sfnic_firmware_cmds::layout::{Field, Layout, View, ViewMut};
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::opcode::Opcode;

use crate::command::{CmdError, CommandQueue, Out};
use crate::memory::GuestMemory;
use crate::window::Window;

/// ACCESS_REG: op_mod of a write.
pub const WRITE: u32 = 0;
/// ACCESS_REG: op_mod of a read.
pub const READ: u32 = 1;
/// Register PAOS.
pub const PAOS: u32 = 0x5006;
/// Register PMTU.
pub const PMTU: u32 = 0x5003;
/// Register PPCNT.
pub const PPCNT: u32 = 0x5008;
/// GENERAL capabilities.
pub const GENERAL: u32 = 0;

/// A function as its driver sees it.
pub struct Function {
    /// Its window.
    pub window: Window,
    /// Memory that the device reaches.
    pub mem: Arc<GuestMemory>,
    /// Its command queue.
    pub cmdq: CommandQueue,
    /// In whose name objects are made; 0 is the kernel.
    uid: Cell<u16>,
}

impl Function {
    /// A function that no driver has touched; the queue's address is written.
    pub fn new(window: Window, mem: Arc<GuestMemory>) -> Self {
        let cmdq = CommandQueue::new(window.clone(), mem.clone());
        cmdq.attach();
        Self { window, mem, cmdq, uid: Cell::new(0) }
    }

    /// Objects are made and named as this user context from here on.
    pub fn act_as(&self, uid: u16) {
        self.uid.set(uid);
    }

    /// Runs a command; `fill` sets the input's fields.
    pub fn cmd<I: Layout, O: Layout>(
        &self,
        opcode: Opcode,
        fill: impl FnOnce(&mut ViewMut<'_, I>),
    ) -> Result<Out<O>, CmdError> {
        self.cmd_with(opcode, &[], 0, fill)
    }

    /// Runs a command whose input goes on with `tail`, and whose output has
    /// `more` bytes behind its fixed part.
    pub fn cmd_with<I: Layout, O: Layout>(
        &self,
        opcode: Opcode,
        tail: &[u8],
        more: usize,
        fill: impl FnOnce(&mut ViewMut<'_, I>),
    ) -> Result<Out<O>, CmdError> {
        let uid = self.uid.get();
        self.cmdq.typed(opcode, tail, more, |i: &mut ViewMut<'_, I>| {
            // Every command that has a user context has it in the same place.
            if I::FIELDS.iter().any(|f| f.name == "uid") {
                ViewMut::<CreateTisIn>::new(i.raw()).set(CreateTisIn::uid, uid.into());
            }
            fill(i);
        })
    }

    /// Everything from power-on to an initialised function: ENABLE_HCA, ISSI,
    /// capabilities as they are, no pages, INIT_HCA.
    pub fn bring_up(self) -> Result<Self, CmdError> {
        self.enable()?;
        self.set_issi(1)?;
        self.init()?;
        Ok(self)
    }

    /// As [`bring_up`](Self::bring_up), of a driver that wants to hear of the states of other
    /// functions; also after a reset.
    pub fn bring_up_watching(&self) -> Result<(), CmdError> {
        self.cmdq.attach();
        self.enable()?;
        self.set_issi(1)?;
        let mut caps = self.caps(GENERAL, true)?;
        ViewMut::<CmdHcaCap>::new(&mut caps).set(CmdHcaCap::vhca_state, 1);
        self.set_caps(GENERAL, &caps)?;
        self.init()
    }

    /// The driver's own ENABLE_HCA.
    pub fn enable(&self) -> Result<(), CmdError> {
        self.cmd::<EnableHcaIn, EnableHcaOut>(Opcode::ENABLE_HCA, |_| ()).map(drop)
    }

    /// The driver's own DISABLE_HCA.
    pub fn disable(&self) -> Result<(), CmdError> {
        self.cmd::<DisableHcaIn, DisableHcaOut>(Opcode::DISABLE_HCA, |_| ()).map(drop)
    }

    /// SET_ISSI.
    pub fn set_issi(&self, issi: u32) -> Result<(), CmdError> {
        self.cmd::<SetIssiIn, SetIssiOut>(Opcode::SET_ISSI, |i| {
            i.set(SetIssiIn::current_issi, issi);
        })
        .map(drop)
    }

    /// INIT_HCA.
    pub fn init(&self) -> Result<(), CmdError> {
        self.cmd::<InitHcaIn, InitHcaOut>(Opcode::INIT_HCA, |_| ()).map(drop)
    }

    /// TEARDOWN_HCA.
    pub fn teardown(&self) -> Result<(), CmdError> {
        self.cmd::<TeardownHcaIn, TeardownHcaOut>(Opcode::TEARDOWN_HCA, |_| ()).map(drop)
    }

    /// What a driver does when it leaves: TEARDOWN_HCA and DISABLE_HCA.
    pub fn shut_down(&self) -> Result<(), CmdError> {
        self.teardown()?;
        self.disable()
    }

    /// A GENERAL capability in force.
    pub fn cap(&self, f: Field<CmdHcaCap>) -> Result<u32, CmdError> {
        let group = self.caps(GENERAL, true)?;
        Ok(View::<CmdHcaCap>::new(&group).get(f))
    }

    /// A group of capabilities: in force, or the maximum.
    pub fn caps(&self, group: u32, current: bool) -> Result<Vec<u8>, CmdError> {
        let out: Out<QueryHcaCapOut> = self.cmd(Opcode::QUERY_HCA_CAP, |i: &mut ViewMut<'_, QueryHcaCapIn>| {
            i.set(QueryHcaCapIn::op_mod, group * 2 + u32::from(current));
        })?;
        Ok(out.view().tail(QueryHcaCapOut::capability).to_vec())
    }

    /// SET_HCA_CAP for the function itself.
    pub fn set_caps(&self, group: u32, value: &[u8]) -> Result<(), CmdError> {
        self.cmd::<SetHcaCapIn, SetHcaCapOut>(Opcode::SET_HCA_CAP, |i| {
            i.set(SetHcaCapIn::op_mod, group * 2);
            i.set_tail(SetHcaCapIn::capability, 0, value);
        })
        .map(drop)
    }

    /// ACCESS_REG; answers with the register.
    pub fn register<R: Layout>(
        &self,
        id: u32,
        op_mod: u32,
        fill: impl FnOnce(&mut ViewMut<'_, R>),
    ) -> Result<Vec<u8>, CmdError> {
        let mut data = vec![0; R::SIZE];
        fill(&mut ViewMut::new(&mut data));
        let out: Out<AccessRegisterOut> =
            self.cmd_with(Opcode::ACCESS_REG, &data, R::SIZE, |i: &mut ViewMut<'_, AccessRegisterIn>| {
                i.set(AccessRegisterIn::register_id, id).set(AccessRegisterIn::op_mod, op_mod);
            })?;
        Ok(out.view().tail(AccessRegisterOut::register_data).to_vec())
    }

    /// Sets the physical port up or down.
    pub fn set_port(&self, up: bool) -> Result<(), CmdError> {
        const UP: u32 = 1;
        const DOWN: u32 = 2;
        self.register::<PaosReg>(PAOS, WRITE, |r| {
            r.set(PaosReg::local_port, 1).set(PaosReg::admin_status, if up { UP } else { DOWN });
            r.set(PaosReg::ase, 1);
        })
        .map(drop)
    }

    /// Sets the port's MTU: bytes of a frame with headers and FCS.
    pub fn set_mtu(&self, bytes: u32) -> Result<(), CmdError> {
        self.register::<PmtuReg>(PMTU, WRITE, |r| {
            r.set(PmtuReg::local_port, 1).set(PmtuReg::admin_mtu, bytes);
        })
        .map(drop)
    }

    /// The function's permanent address.
    pub fn mac(&self) -> Result<[u8; 6], CmdError> {
        let out: Out<QueryNicVportContextOut> =
            self.cmd(Opcode::QUERY_NIC_VPORT_CONTEXT, |_: &mut ViewMut<'_, QueryNicVportContextIn>| ())?;
        let c = out.sub(QueryNicVportContextOut::nic_vport_context);
        Ok(read_mac(c.sub(NicVportContext::permanent_address)))
    }

    /// Changes the function's own NIC vport context. `list` is what follows
    /// it: the addresses.
    pub fn modify_vport(
        &self,
        list: &[[u8; 6]],
        fill: impl FnOnce(&mut ViewMut<'_, ModifyNicVportContextIn>),
    ) -> Result<(), CmdError> {
        let tail: Vec<u8> = list.iter().flat_map(|m| write_mac(*m)).collect();
        self.cmd_with::<ModifyNicVportContextIn, ModifyNicVportContextOut>(
            Opcode::MODIFY_NIC_VPORT_CONTEXT,
            &tail,
            0,
            fill,
        )
        .map(drop)
    }

    /// Frames to these groups are wanted.
    pub fn set_multicast(&self, list: &[[u8; 6]]) -> Result<(), CmdError> {
        const MULTICAST: u32 = 1;
        self.modify_vport(list, |i| {
            i.sub(ModifyNicVportContextIn::field_select).set(ModifyNicVportFieldSelect::addresses_list, 1);
            i.sub(ModifyNicVportContextIn::nic_vport_context)
                .set(NicVportContext::allowed_list_type, MULTICAST)
                .set(NicVportContext::allowed_list_size, list.len() as u32);
        })
    }

    /// All frames are wanted, or not.
    pub fn set_promiscuous(&self, on: bool) -> Result<(), CmdError> {
        self.modify_vport(&[], |i| {
            i.sub(ModifyNicVportContextIn::field_select).set(ModifyNicVportFieldSelect::promisc, 1);
            i.sub(ModifyNicVportContextIn::nic_vport_context).set(NicVportContext::promisc_all, on.into());
        })
    }

    /// Frames that left by the physical port and came in, as PPCNT counts them
    /// (group IEEE 802.3).
    pub fn port_frames(&self) -> Result<(u64, u64), CmdError> {
        use Eth8023CntrsGrpDataLayout as Group;
        let raw = self.register::<PpcntReg>(PPCNT, READ, |r| {
            r.set(PpcntReg::local_port, 1);
        })?;
        let c = View::<Group>::new(View::<PpcntReg>::new(&raw).tail(PpcntReg::counter_set));
        let wide = |high, low| u64::from(c.get(high)) << 32 | u64::from(c.get(low));
        Ok((
            wide(Group::a_frames_transmitted_ok_high, Group::a_frames_transmitted_ok_low),
            wide(Group::a_frames_received_ok_high, Group::a_frames_received_ok_low),
        ))
    }

    /// Counters of the function's own vport.
    pub fn vport_counters(&self) -> Result<Out<QueryVportCounterOut>, CmdError> {
        self.cmd(Opcode::QUERY_VPORT_COUNTER, |_: &mut ViewMut<'_, QueryVportCounterIn>| ())
    }
}

/// An address as lists and contexts hold it.
pub fn write_mac(mac: [u8; 6]) -> [u8; MacAddressLayout::SIZE] {
    let mut e = [0; MacAddressLayout::SIZE];
    ViewMut::<MacAddressLayout>::new(&mut e)
        .set(MacAddressLayout::mac_addr_47_32, u16::from_be_bytes([mac[0], mac[1]]).into())
        .set(MacAddressLayout::mac_addr_31_0, u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]));
    e
}

/// An address as contexts hold it.
pub fn read_mac(v: View<'_, MacAddressLayout>) -> [u8; 6] {
    let [_, _, a, b] = v.get(MacAddressLayout::mac_addr_47_32).to_be_bytes();
    let [c, d, e, f] = v.get(MacAddressLayout::mac_addr_31_0).to_be_bytes();
    [a, b, c, d, e, f]
}
