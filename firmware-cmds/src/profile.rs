//! Capability profiles: what a card answers to QUERY_HCA_CAP, as data.
//!
//! A profile is a TOML file whose keys are the kernel's field names. It is
//! turned into one block of bytes a capability group, kind of function and
//! answer mode; a wrong key or a value that does not fit is an error that names
//! it.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value};

use crate::layout::{Info, Kind, Layout};
use crate::layouts::*;

/// A group of capabilities (op_mod bits 15:1 of QUERY_HCA_CAP).
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Number in the command (`enum mlx5_cap_type`).
    pub id: u16,
    /// Key in profile files.
    pub key: &'static str,
    /// Layout of the answer.
    pub layout: fn() -> Info,
}

/// Every group that the model knows the layout of.
pub const GROUPS: &[Group] = &[
    Group { id: 0x00, key: "general", layout: CmdHcaCap::info },
    Group { id: 0x01, key: "eth", layout: PerProtocolNetworkingOffloadCaps::info },
    Group { id: 0x02, key: "odp", layout: OdpCap::info },
    Group { id: 0x03, key: "atomic", layout: AtomicCaps::info },
    Group { id: 0x04, key: "roce", layout: RoceCap::info },
    Group { id: 0x07, key: "flow_nic", layout: FlowTableNicCap::info },
    Group { id: 0x08, key: "flow_eswitch", layout: FlowTableEswitchCap::info },
    Group { id: 0x09, key: "eswitch", layout: ESwitchCap::info },
    Group { id: 0x0c, key: "qos", layout: QosCap::info },
    Group { id: 0x0d, key: "debug", layout: DebugCap::info },
    Group { id: 0x14, key: "device_event", layout: DeviceEventCap::info },
    Group { id: 0x20, key: "general2", layout: CmdHcaCap2::info },
];

/// Bytes of every answer of QUERY_HCA_CAP (the capability union).
pub const GROUP_SIZE: usize = 4096;

/// The capability groups of one kind of function.
#[derive(Clone, Debug, Default)]
pub struct Caps {
    /// Group id to (maximum, current), [`GROUP_SIZE`] bytes each.
    pub groups: BTreeMap<u16, (Vec<u8>, Vec<u8>)>,
}

/// A card.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Name, as `--profile` takes it.
    pub name: String,
    /// PCI vendor.
    pub vendor_id: u16,
    /// PCI device of the physical function.
    pub device_id: u16,
    /// PCI subsystem device.
    pub subsystem_id: u16,
    /// Firmware version: major, minor, sub-minor.
    pub firmware: [u16; 3],
    /// Parameter-set id (QUERY_ADAPTER), at most 16 characters.
    pub psid: String,
    /// Name of the board.
    pub board: String,
    /// Capabilities of a physical function.
    pub pf: Caps,
    /// Capabilities of a sub-function.
    pub sf: Caps,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not TOML, or a key of the head is missing or wrong.
    #[error("profile: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A section names no capability group.
    #[error("profile: [{section}.{group}] is not a capability group; known: {known}")]
    Group { section: &'static str, group: String, known: String },
    /// A key names no field of its group.
    #[error("profile: `{field}` is not a field of {group}")]
    Field { group: String, field: String },
    /// A value is not a number that fits the field.
    #[error("profile: `{field}` takes a number of at most {bits} bits")]
    Value { field: String, bits: u32 },
    /// A setting that is not one.
    #[error("`{setting}`: allowed is NAME=NUMBER or GROUP.NAME=NUMBER (striding_rq=1)")]
    Setting { setting: String },
    /// A name that no group has.
    #[error("`{field}` is not a field of any capability group")]
    Nowhere { field: String },
    /// A name that several groups have.
    #[error("`{field}` is a field of {groups}: write GROUP.{field}")]
    Many { field: String, groups: String },
    /// No built-in profile of that name.
    #[error("no profile `{0}`; there is: connectx6dx")]
    Unknown(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    vendor_id: u16,
    device_id: u16,
    subsystem_id: u16,
    firmware: [u16; 3],
    psid: String,
    board: String,
    #[serde(default)]
    caps: Table,
    #[serde(default)]
    settable: Table,
    #[serde(default)]
    pf: Table,
    #[serde(default)]
    pf_settable: Table,
    #[serde(default)]
    sf: Table,
    #[serde(default)]
    match_fields: Table,
}

impl Profile {
    /// A profile that is built in.
    pub fn builtin(name: &str) -> Result<Self, ProfileError> {
        match name {
            "connectx6dx" => Self::parse(include_str!("../profiles/connectx6dx.toml")),
            _ => Err(ProfileError::Unknown(name.to_owned())),
        }
    }

    /// Reads a profile file.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let f: File = toml::from_str(text)?;
        let mut pf = Caps::default();
        let mut sf = Caps::default();
        for caps in [&mut pf, &mut sf] {
            caps.apply("caps", &f.caps, true)?;
            caps.apply("settable", &f.settable, false)?;
        }
        pf.apply("pf", &f.pf, true)?;
        pf.apply("pf_settable", &f.pf_settable, false)?;
        sf.apply("sf", &f.sf, true)?;
        for caps in [&mut pf, &mut sf] {
            caps.match_fields(&f.match_fields)?;
        }
        Ok(Self {
            name: f.name,
            vendor_id: f.vendor_id,
            device_id: f.device_id,
            subsystem_id: f.subsystem_id,
            firmware: f.firmware,
            psid: f.psid,
            board: f.board,
            pf,
            sf,
        })
    }
}

impl Profile {
    /// Sets a capability of every function, in both answers: `NAME=VALUE` or
    /// `GROUP.NAME=VALUE`, with a path where a group has groups inside
    /// (`flow_nic.flow_table_properties_nic_receive.decap=1`). A group that only a
    /// physical function has stays one that SFs do not have.
    pub fn set(&mut self, setting: &str) -> Result<(), ProfileError> {
        let wrong = || ProfileError::Setting { setting: setting.to_owned() };
        let (path, value) = setting.split_once('=').ok_or_else(wrong)?;
        let value = value.trim();
        let value = match value.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16),
            None => value.parse(),
        };
        let value = value.map_err(|_| wrong())?;
        let mut names: Vec<&str> = path.split('.').map(str::trim).collect();
        if names.len() == 1 {
            let has = |g: &&Group| (g.layout)().fields.iter().any(|f| f.name.trim_start_matches("r#") == names[0]);
            let groups: Vec<&str> = GROUPS.iter().filter(has).map(|g| g.key).collect();
            match groups[..] {
                [] => return Err(ProfileError::Nowhere { field: path.to_owned() }),
                [group] => names.insert(0, group),
                _ => return Err(ProfileError::Many { field: path.to_owned(), groups: groups.join(", ") }),
            }
        }
        let mut table = Table::new();
        let mut inner = Value::Integer(value);
        for name in names.iter().skip(1).rev() {
            inner = Value::Table(Table::from_iter([((*name).to_owned(), inner)]));
        }
        table.insert(names[0].to_owned(), inner);
        let id = GROUPS.iter().find(|g| g.key == names[0]).map(|g| g.id);
        for (caps, sf) in [(&mut self.pf, false), (&mut self.sf, true)] {
            if !sf || id.is_none_or(|id| caps.groups.contains_key(&id)) {
                caps.apply("caps", &table, true)?;
            }
        }
        Ok(())
    }
}

impl Caps {
    fn block(&mut self, id: u16) -> &mut (Vec<u8>, Vec<u8>) {
        self.groups.entry(id).or_insert_with(|| (vec![0; GROUP_SIZE], vec![0; GROUP_SIZE]))
    }

    fn apply(&mut self, section: &'static str, t: &Table, current: bool) -> Result<(), ProfileError> {
        for (key, body) in t {
            let group = GROUPS.iter().find(|g| g.key == key).ok_or_else(|| ProfileError::Group {
                section,
                group: key.clone(),
                known: GROUPS.iter().map(|g| g.key).collect::<Vec<_>>().join(", "),
            })?;
            let (max, cur) = self.block(group.id);
            let table = body.as_table().cloned().unwrap_or_default();
            write_fields(max, 0, &(group.layout)(), &table)?;
            if current {
                write_fields(cur, 0, &(group.layout)(), &table)?;
            }
        }
        Ok(())
    }

    /// Copies the matchable fields into every table type that is offered.
    fn match_fields(&mut self, fields: &Table) -> Result<(), ProfileError> {
        let supported = FlowTableFieldsSupported::info();
        for group in GROUPS.iter().filter(|g| g.key.starts_with("flow_")) {
            let Some((max, cur)) = self.groups.get_mut(&group.id) else { continue };
            for f in (group.layout)().fields {
                if f.kind != Kind::Sub || f.sub.is_none_or(|s| s().name != FlowTablePropLayout::NAME) {
                    continue;
                }
                let at = (f.bit / 8) as usize;
                if max[at] & 0x80 == 0 {
                    continue; // ft_support is clear
                }
                for block in [&mut *max, &mut *cur] {
                    for area in [FlowTablePropLayout::ft_field_support, FlowTablePropLayout::ft_field_bitmask_support] {
                        write_fields(block, at + area.offset(), &supported, fields)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn write_fields(block: &mut [u8], base: usize, layout: &Info, values: &Table) -> Result<(), ProfileError> {
    for (key, value) in values {
        let f = layout
            .fields
            .iter()
            .find(|f| f.name.trim_start_matches("r#") == key)
            .ok_or_else(|| ProfileError::Field { group: layout.name.to_owned(), field: key.clone() })?;
        match (value, f.sub) {
            (Value::Table(inner), Some(sub)) => write_fields(block, base + (f.bit / 8) as usize, &sub(), inner)?,
            (Value::Integer(n), None) if f.width <= 32 && *n >= 0 && (*n as u64) >> f.width == 0 => {
                let at = base + (f.bit / 32 * 4) as usize;
                let mut dword = [0; 4];
                dword.copy_from_slice(&block[at..at + 4]);
                let field = crate::layout::Field::<()>::at(f.bit, f.width);
                let d = field.in_dword(u32::from_be_bytes(dword), *n as u32);
                block[at..at + 4].copy_from_slice(&d.to_be_bytes());
            }
            // A list of dwords.
            (Value::Array(list), None) if f.kind == Kind::Bytes && list.len() as u32 * 32 == f.width * f.count => {
                for (i, n) in list.iter().enumerate() {
                    let n = n.as_integer().and_then(|n| u32::try_from(n).ok());
                    let n = n.ok_or_else(|| ProfileError::Value { field: key.clone(), bits: 32 })?;
                    let at = base + (f.bit / 8) as usize + 4 * i;
                    block[at..at + 4].copy_from_slice(&n.to_be_bytes());
                }
            }
            (Value::Integer(n), None) if f.width == 64 && *n >= 0 => {
                let at = base + (f.bit / 8) as usize;
                block[at..at + 8].copy_from_slice(&n.to_be_bytes());
            }
            _ => return Err(ProfileError::Value { field: key.clone(), bits: f.width }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::View;

    #[test]
    fn the_built_in_profile_reads() {
        let p = Profile::builtin("connectx6dx").unwrap();
        let (max, cur) = &p.pf.groups[&0];
        let (max, cur) = (View::<CmdHcaCap>::new(max), View::<CmdHcaCap>::new(cur));
        assert_eq!(max.get(CmdHcaCap::vhca_state), 1);
        assert_eq!(cur.get(CmdHcaCap::vhca_state), 0);
        assert_eq!(cur.get(CmdHcaCap::log_max_cq), 16);
        let sf = View::<CmdHcaCap>::new(&p.sf.groups[&0].1);
        assert_eq!(sf.get(CmdHcaCap::eswitch_manager), 0);
    }

    #[test]
    fn single_capabilities_are_set() {
        let mut p = Profile::builtin("connectx6dx").unwrap();
        let eth = View::<PerProtocolNetworkingOffloadCaps>::new(&p.sf.groups[&1].1);
        let periods = eth.bytes(PerProtocolNetworkingOffloadCaps::lro_timer_supported_periods);
        assert_eq!(periods, [[0, 0, 0, 8], [0, 0, 0, 16], [0, 0, 0, 32], [0, 0, 4, 0]].as_flattened());
        p.set("striding_rq=1").unwrap();
        p.set("eth.max_lso_cap = 0x10").unwrap();
        p.set("flow_nic.flow_table_properties_nic_receive.decap=1").unwrap();
        p.set("eswitch.vxlan_encap_decap=0").unwrap();
        assert!(p.pf.groups.contains_key(&9) && !p.sf.groups.contains_key(&9), "SFs have no eswitch");
        for caps in [&p.pf, &p.sf] {
            let (max, cur) = &caps.groups[&0];
            assert_eq!(View::<CmdHcaCap>::new(max).get(CmdHcaCap::striding_rq), 1);
            assert_eq!(View::<CmdHcaCap>::new(cur).get(CmdHcaCap::striding_rq), 1);
        }
        for (setting, said) in [
            ("striding_rq", "NAME=NUMBER"),
            ("striding_rq=yes", "NAME=NUMBER"),
            ("striding_rq=2", "at most 1 bits"),
            ("striding_rq=-1", "at most 1 bits"),
            ("strideing=1", "not a field of any"),
            ("eth.striding_rq=1", "is not a field of"),
            ("ether.lro_cap=1", "is not a capability group"),
            ("general=1", "not a field of any"),
        ] {
            let e = p.set(setting).unwrap_err().to_string();
            assert!(e.contains(said), "{setting}: {e}");
        }
    }

    #[test]
    fn a_wrong_key_is_named() {
        let text = include_str!("../profiles/connectx6dx.toml").replace("log_max_cq = 16", "log_max_qc = 16");
        let e = Profile::parse(&text).unwrap_err().to_string();
        assert!(e.contains("log_max_qc"), "{e}");
    }
}
