//! Access registers of the firmware image and of the node: what is installed, which
//! management registers there are, what the node calls itself.

use sfnic_firmware_cmds::layouts::{McamAccessReg, McamReg, McqiReg, McqiVersion, McqsReg, NodeDesc};
use sfnic_firmware_cmds::{Layout, Refusal, Syndrome, View, ViewMut};

use super::{Answer, Cx};

/// Index of the only component.
const BOOT_IMAGE: u32 = 0;

/// MCAM: of the management registers, those that tell the version.
pub(super) fn mcam_read(_: &mut Cx<'_>, i: View<'_, McamReg>, o: &mut ViewMut<'_, McamReg>) -> Answer {
    const FIRST_REGISTERS: u32 = 0;
    let group = i.get(McamReg::access_reg_group);
    o.set(McamReg::feature_group, i.get(McamReg::feature_group)).set(McamReg::access_reg_group, group);
    if group == FIRST_REGISTERS {
        let mut bits = [0; McamAccessReg::SIZE];
        ViewMut::<McamAccessReg>::new(&mut bits).set(McamAccessReg::mcqs, 1).set(McamAccessReg::mcqi, 1);
        o.set_bytes(McamReg::access_regs, &bits);
    }
    Ok(())
}

/// MCQS: the boot image is the only component, and no update is under way.
pub(super) fn mcqs_read(_: &mut Cx<'_>, i: View<'_, McqsReg>, o: &mut ViewMut<'_, McqsReg>) -> Answer {
    const IDENTIFIER_BOOT_IMAGE: u32 = 1;
    const PRESENT: u32 = 1;
    if i.get(McqsReg::component_index) != BOOT_IMAGE {
        return Err(Refusal::param(Syndrome::REGISTER_VALUE));
    }
    o.set(McqsReg::last_index_flag, 1);
    o.set(McqsReg::identifier, IDENTIFIER_BOOT_IMAGE);
    o.set(McqsReg::component_status, PRESENT);
    Ok(())
}

/// MCQI: version of the boot image, running and stored alike.
pub(super) fn mcqi_read(cx: &mut Cx<'_>, i: View<'_, McqiReg>, o: &mut ViewMut<'_, McqiReg>) -> Answer {
    const VERSION: u32 = 1;
    let (kind, size) = (i.get(McqiReg::info_type), i.get(McqiReg::data_size));
    if i.get(McqiReg::component_index) != BOOT_IMAGE || kind != VERSION {
        return Err(Refusal::param(Syndrome::REGISTER_VALUE));
    }
    let mut raw = [0; McqiVersion::SIZE];
    let [major, minor, sub] = cx.nic.profile.firmware;
    let text = format!("{major}.{minor:02}.{sub:04}");
    let mut v = ViewMut::<McqiVersion>::new(&mut raw);
    v.set(McqiVersion::version, version(cx.nic.profile.firmware));
    v.set(McqiVersion::version_string_length, text.len() as u32);
    v.set_bytes(McqiVersion::version_string, text.as_bytes());
    o.set(McqiReg::info_type, kind).set(McqiReg::info_size, McqiVersion::SIZE as u32).set(McqiReg::data_size, size);
    o.set_tail(McqiReg::data, 0, &raw[..McqiVersion::SIZE.min(size as usize)]);
    Ok(())
}

/// Major, minor and sub-minor number in one dword, as health buffer and MCQI
/// carry them.
fn version([major, minor, sub]: [u16; 3]) -> u32 {
    u32::from(major) << 24 | u32::from(minor & 0xff) << 16 | u32::from(sub)
}

/// NODE_DESC: what an administrator wrote, or else the model's name.
pub(super) fn node_desc_read(cx: &mut Cx<'_>, _: View<'_, NodeDesc>, o: &mut ViewMut<'_, NodeDesc>) -> Answer {
    let written = cx.function()?.node_desc;
    match written {
        Some(text) => o.set_bytes(NodeDesc::desc, &text),
        None => o.set_bytes(NodeDesc::desc, cx.nic.profile.name.as_bytes()),
    };
    Ok(())
}

/// A function's own text; other functions keep theirs.
pub(super) fn node_desc_write(cx: &mut Cx<'_>, i: View<'_, NodeDesc>) -> Answer {
    let mut text = [0; NodeDesc::SIZE];
    text.copy_from_slice(i.bytes(NodeDesc::desc));
    cx.function()?.node_desc = Some(text);
    Ok(())
}
