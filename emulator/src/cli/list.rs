//! `sfnic list`: what is implemented, from the tables that the device itself works by.

use serde_json::{Map, Value, json};
use sfnic_device_model::cmd::regs::REGISTERS;
use sfnic_device_model::cmd::table::{self, Needs, Role};
use sfnic_firmware_cmds::layout::{Field, Info, Kind};
use sfnic_firmware_cmds::opcode::Opcode;
use sfnic_firmware_cmds::profile::{Caps, GROUP_SIZE, GROUPS, Profile};

use super::{Done, Failure, colours, print};
use crate::config::{self, DEFAULT_PROFILE};

/// List what is implemented: commands, capabilities, registers.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
#[command(disable_help_subcommand = true)]
enum What {
    /// Every command that the manual names, and whether it is implemented.
    Commands {
        #[command(flatten)]
        how: How,
    },
    /// The capabilities that a profile offers: maximum and current value before the driver
    /// chooses, for physical functions and sub-functions.
    ///
    /// What follows from the configuration (vhca_id, the number of SFs) is set on top.
    Caps {
        /// A built-in profile, or the path of one.
        #[arg(long, value_name = "NAME", default_value = DEFAULT_PROFILE)]
        profile: String,
        /// Fields that are zero too.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        how: How,
    },
    /// The access registers that are modelled.
    Registers {
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, clap::Args)]
struct How {
    /// A JSON array of objects instead of a table.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> Done {
    let (rows, how) = match args.what {
        What::Commands { how } => (commands(), how),
        What::Registers { how } => (registers(), how),
        What::Caps { profile, all, how } => {
            let parsed = config::profile(&profile, None)
                .map_err(|why| Failure::Usage(format!("--profile = {profile:?}: {why}")))?;
            (capabilities(&parsed, all), how)
        }
    };
    let text = if how.json { json_text(rows) } else { as_table(&rows, colours(&std::io::stdout())) };
    print(&text)?;
    Ok(0)
}

/// A row of any of the lists: keys in their order.
type Row = Vec<(&'static str, Value)>;

fn commands() -> Vec<Row> {
    let row = |(opcode, name): &(Opcode, &'static str)| -> Row {
        let known = table::find(*opcode);
        let needs = known.map(|r| match r.needs {
            Needs::Nothing => "nothing",
            Needs::Enabled => "enabled",
            Needs::Initialised => "initialised",
        });
        let role = known.map(|r| match r.role {
            Role::Any => "any",
            Role::Parent => "parent",
            Role::Manager => "manager",
        });
        vec![
            ("opcode", json!(opcode.0)),
            ("name", json!(name)),
            ("implemented", json!(known.is_some())),
            ("needs", json!(needs)),
            ("role", json!(role)),
            ("input", json!(known.map(|r| r.input.info().name))),
            ("input_size", json!(known.map(|r| r.input.size()))),
            ("output", json!(known.map(|r| r.output.info().name))),
            ("output_size", json!(known.map(|r| r.output.size()))),
        ]
    };
    Opcode::ALL.iter().map(row).collect()
}

fn registers() -> Vec<Row> {
    let row = |r: &sfnic_device_model::cmd::regs::RegisterRow| -> Row {
        vec![("id", json!(r.id)), ("name", json!(r.name)), ("size", json!(r.size)), ("writable", json!(r.writable))]
    };
    REGISTERS.iter().map(row).collect()
}

fn capabilities(profile: &Profile, all: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for group in GROUPS {
        let answers = Answers { pf: blocks(&profile.pf, group.id), sf: blocks(&profile.sf, group.id) };
        if answers.pf.is_none() && answers.sf.is_none() && !all {
            continue;
        }
        let place = Place { group: (group.id, group.key), answers: &answers, all };
        place.fields(&(group.layout)(), 0, "", &mut rows);
    }
    rows
}

/// (maximum, current).
type Blocks<'a> = Option<(&'a [u8], &'a [u8])>;

fn blocks(caps: &Caps, group: u16) -> Blocks<'_> {
    caps.groups.get(&group).map(|(max, cur)| (max.as_slice(), cur.as_slice()))
}

/// What each kind of function answers for a group.
struct Answers<'a> {
    pf: Blocks<'a>,
    sf: Blocks<'a>,
}

struct Place<'a> {
    group: (u16, &'static str),
    answers: &'a Answers<'a>,
    all: bool,
}

impl Place<'_> {
    /// The fields of a structure that starts at a bit of the group.
    fn fields(&self, layout: &Info, start: u32, prefix: &str, rows: &mut Vec<Row>) {
        for f in layout.fields {
            let name = f.name.trim_start_matches("r#");
            for index in 0..f.count {
                let at = start + f.bit + index * f.width;
                let name = if f.count > 1 { format!("{prefix}{name}[{index}]") } else { format!("{prefix}{name}") };
                match (f.kind, f.sub) {
                    (Kind::Sub, Some(sub)) => self.fields(&sub(), at, &format!("{name}."), rows),
                    (Kind::Bits | Kind::U64, _) => self.field(name, at, f.width, rows),
                    // No capability is text.
                    _ => {}
                }
            }
        }
    }

    fn field(&self, name: String, bit: u32, width: u32, rows: &mut Vec<Row>) {
        let pair = |blocks: Blocks<'_>| blocks.map(|(max, cur)| (value(max, bit, width), value(cur, bit, width)));
        let (pf, sf) = (pair(self.answers.pf), pair(self.answers.sf));
        if !self.all && [pf, sf].iter().flatten().all(|v| *v == (0, 0)) {
            return;
        }
        rows.push(vec![
            ("group", json!(self.group.1)),
            ("group_id", json!(self.group.0)),
            ("field", json!(name)),
            ("bit", json!(bit)),
            ("width", json!(width)),
            ("pf_max", json!(pf.map(|v| v.0))),
            ("pf_cur", json!(pf.map(|v| v.1))),
            ("sf_max", json!(sf.map(|v| v.0))),
            ("sf_cur", json!(sf.map(|v| v.1))),
        ]);
    }
}

/// A field of a capability block; zero past its end.
fn value(block: &[u8], bit: u32, width: u32) -> u64 {
    debug_assert!(block.len() <= GROUP_SIZE);
    let dword = |index: usize| {
        let bytes = block.chunks_exact(4).nth(index).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    };
    let field = Field::<()>::at(bit, width.min(32));
    if width <= 32 {
        return field.of_dword(dword(field.dword())).into();
    }
    let (high, low) = (dword(field.dword()), dword(field.dword() + 1));
    u64::from_be_bytes([high.to_be_bytes(), low.to_be_bytes()].concat().try_into().unwrap_or_default())
}

fn json_text(rows: Vec<Row>) -> String {
    let objects = rows.into_iter().map(|row| {
        let fields: Map<String, Value> = row.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Value::Object(fields)
    });
    format!("{:#}\n", Value::Array(objects.collect()))
}

/// Columns, as wide as they need to be; numbers are on the right.
fn as_table(rows: &[Row], colour: bool) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let heads: Vec<String> = first.iter().map(|(key, _)| key.replace('_', " ")).collect();
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|(key, v)| cell(key, v)).collect()).collect();
    let width = |column: usize| {
        let all = cells.iter().map(|row| row[column].chars().count());
        all.chain([heads[column].len()]).max().unwrap_or_default()
    };
    let right: Vec<bool> = (0..heads.len()).map(|c| rows.iter().any(|row| row[c].1.is_number())).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().enumerate().map(|(column, text)| match (right[column], width(column)) {
            (true, width) => format!("{text:>width$}"),
            (false, width) => format!("{text:<width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = line(&heads);
    let head = if colour { format!("\u{1b}[1m{head}\u{1b}[0m") } else { head };
    let mut text = head + "\n";
    for row in &cells {
        text += &(line(row) + "\n");
    }
    text
}

/// A value as a person reads it.
fn cell(key: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(n) if matches!(key, "opcode" | "id" | "group_id") => {
            format!("{:#x}", n.as_u64().unwrap_or_default())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(rows: &'a [Row], key: &str, value: &str) -> Option<&'a Row> {
        rows.iter().find(|row| row.iter().any(|(k, v)| *k == key && v == value))
    }

    fn get<'a>(row: &'a Row, key: &str) -> &'a Value {
        &row.iter().find(|(k, _)| *k == key).unwrap().1
    }

    #[test]
    fn every_known_command_is_listed_once() {
        let rows = commands();
        assert_eq!(rows.len(), Opcode::ALL.len());
        let implemented = rows.iter().filter(|r| *get(r, "implemented") == true).count();
        assert_eq!(implemented, table::ROWS.len());
        let row = find(&rows, "name", "CREATE_CQ").unwrap();
        assert_eq!(get(row, "opcode"), 0x400);
        assert_eq!(get(row, "input"), "create_cq_in");
        let row = find(&rows, "name", "CREATE_DCT").unwrap();
        assert_eq!((get(row, "implemented"), get(row, "input")), (&json!(false), &Value::Null));
    }

    #[test]
    fn capabilities_have_nested_names_and_both_values() {
        let profile = Profile::builtin(DEFAULT_PROFILE).unwrap();
        let rows = capabilities(&profile, false);
        let row = find(&rows, "field", "log_max_cq").unwrap();
        assert_eq!((get(row, "pf_max"), get(row, "pf_cur")), (&json!(16), &json!(16)));
        let row = find(&rows, "field", "vhca_state").unwrap();
        assert_eq!((get(row, "pf_max"), get(row, "pf_cur")), (&json!(1), &json!(0)));
        assert!(find(&rows, "field", "flow_table_properties_nic_receive.ft_support").is_some());
        assert!(capabilities(&profile, true).len() > rows.len());
    }

    #[test]
    fn wide_fields_are_two_dwords_and_the_end_is_zero() {
        let block = [0, 0, 0, 1, 0, 0, 0, 2];
        assert_eq!(value(&block, 0, 64), 0x1_0000_0002);
        assert_eq!(value(&block, 60, 4), 2);
        assert_eq!(value(&block, 64, 8), 0);
    }

    #[test]
    fn tables_are_aligned() {
        let rows = vec![
            vec![("opcode", json!(0x100)), ("name", json!("A")), ("input_size", json!(null))],
            vec![("opcode", json!(1)), ("name", json!("LONG")), ("input_size", json!(16))],
        ];
        assert_eq!(
            as_table(&rows, false),
            "opcode  name  input size\n 0x100  A              -\n   0x1  LONG          16\n"
        );
    }
}
