//! The L2 table: which addresses the switch between a port and its physical functions (the
//! multi-physical-function switch) gives to this function.
//!
//! A port of ours has one physical function, so every frame that comes in by the port is for
//! that function's eswitch, in the table or not; a sender finds that out by nothing else
//! than by being received. The entries are kept and told as they were set. Silent mode is
//! not modelled: no capability offers it.

use std::collections::BTreeMap;

use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Refusal, Status, Syndrome, View, ViewMut};

use super::vport::{read_mac, write_mac};
use super::{Answer, Cx};

/// An address that is this function's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// The address.
    pub mac: [u8; 6],
    /// The VLAN, if it counts in one only.
    pub vlan: Option<u16>,
}

/// The table by index. The capability `log_max_l2_table` bounds it.
pub type L2Table = BTreeMap<u32, Entry>;

fn in_table(cx: &mut Cx<'_>, index: u32) -> Result<u32, Refusal> {
    let size = 1u32 << cx.function()?.caps.general(CmdHcaCap::log_max_l2_table);
    if index < size { Ok(index) } else { Err(Refusal::new(Status::BadIndex, Syndrome::L2_INDEX)) }
}

/// SET_L2_TABLE_ENTRY: an entry that is there already is replaced.
pub fn set(cx: &mut Cx<'_>, i: View<'_, SetL2TableEntryIn>, _: &mut ViewMut<'_, SetL2TableEntryOut>) -> Answer {
    use SetL2TableEntryIn as In;
    if i.is(In::silent_mode_valid) {
        return Err(Refusal::param(Syndrome::FIELD_SELECT));
    }
    let index = in_table(cx, i.get(In::table_index))?;
    let vlan = i.is(In::vlan_valid).then(|| i.get(In::vlan) as u16);
    cx.ctl.l2_table.insert(index, Entry { mac: read_mac(i.sub(In::mac_address)), vlan });
    Ok(())
}

/// QUERY_L2_TABLE_ENTRY.
pub fn query(cx: &mut Cx<'_>, i: View<'_, QueryL2TableEntryIn>, o: &mut ViewMut<'_, QueryL2TableEntryOut>) -> Answer {
    use QueryL2TableEntryOut as Out;
    if i.is(QueryL2TableEntryIn::silent_mode_query) {
        return Err(Refusal::param(Syndrome::FIELD_SELECT));
    }
    let entry = entry(cx, i.get(QueryL2TableEntryIn::table_index))?;
    o.set(Out::vlan_valid, entry.vlan.is_some().into());
    o.set(Out::vlan, entry.vlan.unwrap_or(0).into());
    write_mac(&mut o.sub(Out::mac_address), entry.mac);
    Ok(())
}

/// DELETE_L2_TABLE_ENTRY.
pub fn delete(
    cx: &mut Cx<'_>,
    i: View<'_, DeleteL2TableEntryIn>,
    _: &mut ViewMut<'_, DeleteL2TableEntryOut>,
) -> Answer {
    let index = i.get(DeleteL2TableEntryIn::table_index);
    entry(cx, index)?;
    cx.ctl.l2_table.remove(&index);
    Ok(())
}

fn entry(cx: &mut Cx<'_>, index: u32) -> Result<Entry, Refusal> {
    let index = in_table(cx, index)?;
    let absent = Refusal::new(Status::BadRes, Syndrome::NO_SUCH_OBJECT);
    cx.ctl.l2_table.get(&index).copied().ok_or(absent)
}
