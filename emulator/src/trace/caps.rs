//! A capability profile out of a log's QUERY_HCA_CAP answers.
//!
//! What the card has and the model has too becomes the profile; what only the
//! card has is listed. The built-in profile says what the model implements.

use serde::Serialize;
use sfnic_device_model::cmd::fields::bits;
use sfnic_firmware_cmds::layout::{Info, Kind, Layout as _, View};
use sfnic_firmware_cmds::layouts::{
    FlowTableFieldsSupported, FlowTablePropLayout, QueryAdapterOut, QueryAdapterParamBlock, QueryHcaCapIn,
    QueryHcaCapOut,
};
use sfnic_firmware_cmds::opcode::Opcode;
use sfnic_firmware_cmds::profile::{Caps, GROUP_SIZE, GROUPS, Profile};
use toml::{Table, Value};

use super::{Problem, Trace};

/// Fields of which less is not weaker, or that say what the model is: they
/// stay as the model has them. The others are bits, or limits of which the
/// smaller one holds.
const OURS: &[&str] = &[
    "page_request_disable",
    "port_type",
    "num_ports",
    "wqe_inline_mode",
    "log_pg_sz",
    "log_bf_reg_size",
    "cmdif_checksum",
    "ft_field_support",
    "ft_field_bitmask_support",
];
/// Fields that follow from what the device is made of, not from a profile.
const CONFIGURED: &[&str] =
    &["vhca_id", "sf", "max_num_sf", "log_max_sf", "log_min_sf_size", "sf_base_id", "log_max_esw_sf", "esw_sf_base_id"];
/// Fields that are a set of bits.
const SETS: &[&str] = &["fdb_to_vport_reg_c_id"];

/// A capability that the profile does not have as the card has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Beyond {
    /// `pf` or `sf`.
    pub function: &'static str,
    /// Group and field.
    pub field: String,
    /// What the card has.
    pub card: u64,
    /// What the model has.
    pub model: u64,
}

/// What an import comes to.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The profile's file.
    pub text: String,
    /// What the card has beyond it.
    pub beyond: Vec<Beyond>,
    /// Groups that the model has no layout of.
    pub groups: Vec<u16>,
    /// Fields that are in the profile.
    pub fields: usize,
    /// There were answers of an SF.
    pub sf: bool,
}

/// The profile of a trace's first card.
///
/// # Errors
/// It has no capabilities.
pub fn import(trace: &Trace, name: &str) -> Result<Imported, Problem> {
    let model = Profile::builtin(crate::config::DEFAULT_PROFILE).map_err(|e| e.to_string())?;
    let first = trace.commands().filter(|(_, c)| is_answer(c)).map(|(e, _)| e.card).min();
    let Some(card) = first else {
        return Err("has no capabilities: no QUERY_HCA_CAP with an answer".to_owned());
    };
    let (mut pf, mut sf, mut groups) = (Caps::default(), Caps::default(), vec![]);
    let mut psid = model.psid.clone();
    for (e, c) in trace.commands().filter(|(e, _)| e.card == card) {
        let (input, output) = (c.input(), c.output());
        if c.opcode() == Opcode::QUERY_ADAPTER && c.status() == 0 {
            let block = View::<QueryAdapterOut>::new(&output).sub(QueryAdapterOut::query_adapter_struct);
            let text = block.bytes(QueryAdapterParamBlock::vsd_contd_psid);
            let text: String = text.iter().take_while(|b| b.is_ascii_graphic()).map(|b| *b as char).collect();
            if !text.is_empty() {
                psid = text;
            }
        }
        if !is_answer(c) {
            continue;
        }
        let v = View::<QueryHcaCapIn>::new(&input);
        let other = v.is(QueryHcaCapIn::other_function) && v.get(QueryHcaCapIn::function_id) != 0;
        let (id, current) = (c.op_mod() >> 1, c.op_mod() & 1 == 1);
        if !GROUPS.iter().any(|g| g.id == id) {
            if !groups.contains(&id) {
                groups.push(id);
            }
            continue;
        }
        let of = if e.function != 0 || other { &mut sf } else { &mut pf };
        let blocks = of.groups.entry(id).or_insert_with(|| (vec![], vec![]));
        let block = if current { &mut blocks.1 } else { &mut blocks.0 };
        // The first answer is the one before the driver chose.
        if block.is_empty() {
            let mut whole = View::<QueryHcaCapOut>::new(&output).tail(QueryHcaCapOut::capability).to_vec();
            whole.resize(GROUP_SIZE, 0);
            *block = whole;
        }
    }
    for blocks in pf.groups.values_mut().chain(sf.groups.values_mut()) {
        if blocks.0.is_empty() {
            blocks.0 = blocks.1.clone();
        }
        if blocks.1.is_empty() {
            blocks.1 = blocks.0.clone();
        }
    }
    let has_sf = !sf.groups.is_empty();
    if pf.groups.is_empty() {
        return Err("has no capabilities of a physical function".to_owned());
    }
    let mut out = Table::new();
    let version: Vec<Value> = model.firmware.iter().map(|n| Value::Integer((*n).into())).collect();
    out.insert("name".into(), name.into());
    for (key, n) in
        [("vendor_id", model.vendor_id), ("device_id", model.device_id), ("subsystem_id", model.subsystem_id)]
    {
        out.insert(key.into(), Value::Integer(n.into()));
    }
    out.insert("firmware".into(), Value::Array(version));
    out.insert("psid".into(), psid.chars().take(16).collect::<String>().into());
    out.insert("board".into(), model.board.clone().into());
    let mut beyond = vec![];
    let mut fields = 0;
    let mut settable = Table::new();
    let pf_table = kind(&pf, &model.pf, "pf", &mut settable, &mut beyond, &mut fields);
    // Without an SF's answers an SF has what the model's has, as far as the card goes.
    let of_sf = if has_sf { &sf } else { &pf };
    let mut unheard = vec![];
    let (told, mut no_settable) = (if has_sf { &mut beyond } else { &mut unheard }, Table::new());
    let sf_table = kind(of_sf, &model.sf, "sf", &mut no_settable, told, &mut fields);
    out.insert("pf".into(), Value::Table(pf_table));
    out.insert("pf_settable".into(), Value::Table(settable));
    out.insert("sf".into(), Value::Table(sf_table));
    out.insert("match_fields".into(), Value::Table(match_fields(&pf, &model.pf)));
    let text = toml::to_string(&out).map_err(|e| e.to_string())?;
    Profile::parse(&text).map_err(|e| e.to_string())?;
    groups.sort_unstable();
    Ok(Imported { text, beyond, groups, fields, sf: has_sf })
}

fn is_answer(c: &super::Command) -> bool {
    c.opcode() == Opcode::QUERY_HCA_CAP && c.answered && c.delivery == 0 && c.status() == 0 && c.output_len() > 16
}

/// One kind of function: the sections of its groups.
fn kind(
    card: &Caps,
    model: &Caps,
    function: &'static str,
    settable: &mut Table,
    beyond: &mut Vec<Beyond>,
    fields: &mut usize,
) -> Table {
    let mut both = Table::new();
    for g in GROUPS {
        let zero = (vec![0; GROUP_SIZE], vec![0; GROUP_SIZE]);
        let theirs = card.groups.get(&g.id);
        let (theirs, ours) = (theirs.unwrap_or(&zero), model.groups.get(&g.id));
        let offered = ours.is_some();
        let mut w = Cut { theirs, ours: ours.unwrap_or(&zero), function, beyond, fields };
        let (now, later) = w.structure(&(g.layout)(), 0, g.key);
        // A group that is offered is there, even if it is empty.
        if offered && card.groups.contains_key(&g.id) {
            both.insert(g.key.to_owned(), Value::Table(now));
            if !later.is_empty() {
                settable.insert(g.key.to_owned(), Value::Table(later));
            }
        }
    }
    both
}

struct Cut<'a> {
    theirs: &'a (Vec<u8>, Vec<u8>),
    ours: &'a (Vec<u8>, Vec<u8>),
    function: &'static str,
    beyond: &'a mut Vec<Beyond>,
    fields: &'a mut usize,
}

impl Cut<'_> {
    /// The fields in force from the start, and those that the driver may raise.
    fn structure(&mut self, info: &Info, base: usize, path: &str) -> (Table, Table) {
        let (mut now, mut later) = (Table::new(), Table::new());
        for f in info.fields {
            let (bit, width) = (base + f.bit as usize, f.width as usize);
            let path = format!("{path}.{}", f.name);
            match (f.kind, f.sub) {
                (Kind::Sub, Some(sub)) if f.count <= 1 => {
                    let supported = sub().name == FlowTableFieldsSupported::NAME;
                    let (n, l) = self.structure(&sub(), bit, &path);
                    if !supported {
                        if !n.is_empty() {
                            now.insert(f.name.to_owned(), Value::Table(n));
                        }
                        if !l.is_empty() {
                            later.insert(f.name.to_owned(), Value::Table(l));
                        }
                    }
                }
                (Kind::Bits, _) => {
                    let (max, cur) = self.value(f.name, bit, width, &path);
                    if cur > 0 {
                        now.insert(f.name.to_owned(), Value::Integer(cur as i64));
                        *self.fields += 1;
                    } else if max > 0 {
                        later.insert(f.name.to_owned(), Value::Integer(max as i64));
                        *self.fields += 1;
                    }
                }
                (Kind::Bytes, _) => {
                    // Those that the model has are lists of numbers.
                    let numbers = (0..width * f.count as usize / 32).map(|i| bit + 32 * i);
                    let least = |at| bits(&self.theirs.1, at, 32).min(bits(&self.ours.0, at, 32));
                    let list: Vec<u64> = numbers.map(least).collect();
                    if list.iter().any(|n| *n > 0) {
                        let list = list.into_iter().map(|n| Value::Integer(n as i64)).collect();
                        now.insert(f.name.to_owned(), Value::Array(list));
                        *self.fields += 1;
                    }
                }
                _ => {}
            }
        }
        (now, later)
    }

    /// Maximum and current value of a field in the profile.
    fn value(&mut self, name: &str, bit: usize, width: usize, path: &str) -> (u64, u64) {
        let at = |b: &[u8]| bits(b, bit, width);
        // A manager may have lowered the maximum that the function saw.
        let (card, model) = (at(&self.theirs.0).max(at(&self.theirs.1)), at(&self.ours.0));
        let cut = |card: u64, model: u64| match name {
            n if OURS.contains(&n) || CONFIGURED.contains(&n) => model,
            n if SETS.contains(&n) => card & model,
            _ => card.min(model),
        };
        let max = cut(card, model);
        // Less than the maximum is what a manager chose; a profile has it or not.
        let cur = if cut(at(&self.theirs.1), at(&self.ours.1)) > 0 { max } else { 0 };
        if card & !max != 0 && card > max && !CONFIGURED.contains(&name) {
            let field = path.to_owned();
            self.beyond.push(Beyond { function: self.function, field, card, model });
        }
        (max, cur)
    }
}

/// The fields that every table of the card can match and the model too.
fn match_fields(card: &Caps, model: &Caps) -> Table {
    let mut fields = Table::new();
    for f in FlowTableFieldsSupported::FIELDS {
        let mut all = true;
        for g in GROUPS.iter().filter(|g| g.key.starts_with("flow_")) {
            let (Some(ours), Some(theirs)) = (model.groups.get(&g.id), card.groups.get(&g.id)) else { continue };
            for t in (g.layout)().fields {
                if t.sub.is_none_or(|s| s().name != FlowTablePropLayout::NAME) {
                    continue;
                }
                let base = t.bit as usize;
                // Only tables that both have.
                if bits(&ours.0, base, 1) & bits(&theirs.0, base, 1) == 0 {
                    continue;
                }
                let at = base + FlowTablePropLayout::ft_field_support.offset() * 8 + f.bit as usize;
                all &= bits(&ours.0, at, 1) & bits(&theirs.0, at, 1) == 1;
            }
        }
        if all && f.width == 1 {
            fields.insert(f.name.to_owned(), Value::Integer(1));
        }
    }
    fields
}
