//! Which function of which card a device of a log is.
//!
//! PCI devices are cards, in the order of their addresses. An SF's device has
//! no number of its function in its name; it is the one that its manager
//! activated (ENABLE_HCA with a function id) and that no other device is of
//! yet. The driver adds SFs in the order in which they were activated.

use std::collections::BTreeMap;

use sfnic_firmware_cmds::layout::View;
use sfnic_firmware_cmds::layouts::{DeallocSfIn, DisableHcaIn, EnableHcaIn};
use sfnic_firmware_cmds::opcode::Opcode;

use super::file::{Entry, Header, What};
use super::import::{Log, is_pci};
use super::{Problem, Trace};

/// Most cards: what a trace's record has room for.
const MAX_CARDS: usize = 256;
/// First function id given to SFs whose activation is not in the log.
const UNKNOWN: u16 = 0x4000;

/// Names functions by card and number.
///
/// # Errors
/// There are more cards than a trace can name.
pub fn assign(log: Log) -> Result<Trace, Problem> {
    let mut cards: Vec<&String> = log.devices.iter().filter(|d| is_pci(d)).collect();
    cards.sort();
    if cards.len() > MAX_CARDS {
        return Err(format!("has {} PCI devices; at most {MAX_CARDS} can be read", cards.len()));
    }
    let card_of: Vec<Option<u8>> =
        log.devices.iter().map(|d| cards.iter().position(|c| *c == d).map(|i| i as u8)).collect();
    let mut t = Trace { header: Header { source: "log".to_owned(), ..Header::default() }, ..Trace::default() };
    // SFs that are active: whose device they are, once that is known.
    let mut active: Vec<(u8, u16, Option<usize>)> = vec![];
    let mut of: BTreeMap<usize, (u8, u16)> = BTreeMap::new();
    let mut unknown: BTreeMap<usize, usize> = BTreeMap::new();
    for l in log.commands {
        let input = l.command.input();
        let opcode = l.command.opcode();
        let before = of.get(&l.device).copied();
        let place = match card_of[l.device] {
            Some(card) => {
                let id = match opcode {
                    Opcode::ENABLE_HCA => View::<EnableHcaIn>::new(&input).get(EnableHcaIn::function_id) as u16,
                    Opcode::DISABLE_HCA => View::<DisableHcaIn>::new(&input).get(DisableHcaIn::function_id) as u16,
                    Opcode::DEALLOC_SF => View::<DeallocSfIn>::new(&input).get(DeallocSfIn::function_id) as u16,
                    _ => 0,
                };
                if id != 0 {
                    // A function's own number is 0 on a real card too.
                    active.retain(|(c, f, _)| (*c, *f) != (card, id));
                    if opcode == Opcode::ENABLE_HCA {
                        active.push((card, id, None));
                    }
                }
                (card, 0)
            }
            None => {
                let mine = active.iter().find(|a| a.2 == Some(l.device)).map(|a| (a.0, a.1));
                let found = match mine {
                    Some(place) => Some(place),
                    // It goes on with what it was until it begins anew.
                    None if opcode != Opcode::ENABLE_HCA => before,
                    None => active.iter_mut().find(|a| a.2.is_none()).map(|a| {
                        a.2 = Some(l.device);
                        (a.0, a.1)
                    }),
                };
                found.unwrap_or_else(|| {
                    *unknown.entry(l.device).or_default() += 1;
                    (0, UNKNOWN.saturating_add(l.device as u16))
                })
            }
        };
        if before != Some(place) {
            of.insert(l.device, place);
            let what = What::Name(log.devices[l.device].clone());
            t.entries.push(Entry { time_ns: l.time_ns, card: place.0, function: place.1, what });
        }
        let what = What::Command(l.command);
        t.entries.push(Entry { time_ns: l.time_ns, card: place.0, function: place.1, what });
    }
    for (device, n) in unknown {
        t.notes.push(format!("{n} commands of {}: its activation is not in the log", log.devices[device]));
    }
    t.cut = log.cut;
    if log.damaged > 0 {
        t.notes.push(format!("{} dumps are incomplete and left out", log.damaged));
    }
    if log.orphans > 0 {
        t.notes.push(format!("{} answers have no command in the log and are left out", log.orphans));
    }
    let silent = t.commands().filter(|(_, c)| !c.answered).count();
    if silent > 0 {
        t.notes.push(format!("{silent} commands have no answer in the log"));
    }
    Ok(t)
}
