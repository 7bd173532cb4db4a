//! The command queue: fetches entries and mailboxes from guest memory, runs
//! the commands, writes the answers back.

use sfnic_firmware_cmds::Opcode;
use sfnic_firmware_cmds::entries::{Eqe, event};
use sfnic_firmware_cmds::layout::{Layout, View, ViewMut};
use sfnic_firmware_cmds::layouts::{CmdIfBox, CmdQueueEntry};
use sfnic_firmware_cmds::status::Delivery;

use crate::cmd;
use crate::control::Control;
use crate::control::iseg::{LOG_CMDQ_SIZE, LOG_CMDQ_STRIDE};
use crate::control::sf::event_data;
use crate::dma::{DmaAccess, Memory};
use crate::events::Happening;
use crate::faults::CommandFate;
use crate::later::Deed;
use crate::listen::Place;
use crate::nic::{Card, Nic};
use crate::trace::Record;

/// Type of an entry that comes over PCI.
const PCI_TRANSPORT: u32 = 7;
/// Bytes of a command that lie in the entry itself.
const INLINE: usize = 16;
/// Bytes of a mailbox.
const BOX: usize = 512;
/// Longest command or answer: far above what any layout needs.
const MAX_LENGTH: usize = 1 << 20;

/// Runs the entries whose bits are set in `doorbell`.
pub fn doorbell(nic: &Nic, card: &Card, ctl: &mut Control, fid: u16, doorbell: u32) {
    for slot in 0..1u32 << LOG_CMDQ_SIZE {
        if doorbell >> slot & 1 == 1 {
            run_slot(nic, card, ctl, fid, slot, false);
        }
    }
}

/// Runs an entry that a fault held up, if its queue is still there.
pub(crate) fn run_held(nic: &Nic, card: &Card, ctl: &mut Control, fid: u16, slot: u32, queue: u64) {
    if ctl.functions.get(&fid).is_some_and(|f| f.iseg.cmdq_addr() == Some(queue)) {
        run_slot(nic, card, ctl, fid, slot, true);
    }
}

fn run_slot(nic: &Nic, card: &Card, ctl: &mut Control, fid: u16, slot: u32, held: bool) {
    let Some(f) = ctl.functions.get_mut(&fid) else { return };
    let Some(queue) = f.iseg.cmdq_addr() else { return };
    let Some(at) = queue.checked_add(u64::from(slot) << LOG_CMDQ_STRIDE) else { return };
    // The command's completion is reported where the queue was before it.
    let eq = f.command_eq.clone();
    let dma = f.plane.dma.clone();
    let mem = dma.load();
    let mut entry = [0; CmdQueueEntry::SIZE];
    if mem.dma_read(at, &mut entry).is_err() {
        f.stats.undelivered += 1;
        ctl.ledger.undelivered += 1;
        tracing::warn!(card = card.index, function = fid, slot, "command queue is not in guest memory");
        return;
    }
    if !View::<CmdQueueEntry>::new(&entry).is(CmdQueueEntry::ownership) {
        // A doorbell for an entry that the driver still owns.
        f.stats.undelivered += 1;
        ctl.ledger.undelivered += 1;
        return;
    }
    let head = View::<CmdQueueEntry>::new(&entry).bytes(CmdQueueEntry::command_input_inline_data);
    let opcode = Opcode(head.first_chunk().map_or(0, |b| u16::from_be_bytes(*b)));
    let fate = if held { None } else { nic.faults.command(card.index, fid, opcode) };
    match fate {
        None => {}
        Some(CommandFate::Lost) => return,
        Some(CommandFate::Delayed(ns)) => {
            let due = nic.clock.now_ns().saturating_add(ns);
            // Where there is no room it is lost.
            let _ = nic.later.put(due, Deed::Command { card: card.index, function: fid, slot, queue });
            return;
        }
    }
    let (mut input, mut output) = (vec![], vec![]);
    let begun = nic.commands.heard().then(|| nic.clock.now_ns());
    let delivery = deliver(nic, card, ctl, fid, &mem, &mut entry, &mut input, &mut output);
    let record = Record::Command { slot: slot as u8, delivery: delivery as u8, input: &input, output: &output };
    nic.trace.record(card.index, fid, &record);
    if let Some(time_ns) = begun {
        let duration_ns = nic.clock.now_ns().saturating_sub(time_ns);
        let at = Place { time_ns, duration_ns, pf: card.index, function: fid, slot: slot as u8, delivery };
        nic.commands.push(at, &input, &output);
    }
    if let Some(f) = ctl.functions.get_mut(&fid) {
        match delivery {
            Delivery::Ok => f.stats.executed += 1,
            _ => {
                f.stats.undelivered += 1;
                ctl.ledger.undelivered += 1;
                let delivery = format!("{delivery:?}");
                nic.events.push(Happening::CommandUndelivered { pf: card.index, function: fid, delivery });
            }
        }
    }
    // Answer first, ownership last.
    let out = CmdQueueEntry::command_output_inline_data.offset();
    let own = CmdQueueEntry::SIZE - 1;
    let written = mem
        .dma_write(at + out as u64, &entry[out..out + INLINE])
        .and_then(|()| mem.dma_publish8(at + own as u64, (delivery as u8) << 1));
    if written.is_err() {
        tracing::warn!(card = card.index, function = fid, slot, "command answer could not be written");
        return;
    }
    // A queue that this very command destroyed hears nothing any more.
    let still = ctl.functions.get(&fid).is_some_and(|f| f.command_eq.is_some());
    if let Some(eq) = eq.filter(|_| still) {
        let mut eqe = [0; 64];
        ViewMut::<Eqe>::new(&mut eqe).set(Eqe::cmd_vector, 1 << slot);
        eq.post(&mem, event::COMMAND, 0, event_data(&eqe));
    }
}

/// Fetches a command into `input`, executes it into `out`, writes the answer.
#[allow(clippy::too_many_arguments)]
fn deliver(
    nic: &Nic,
    card: &Card,
    ctl: &mut Control,
    fid: u16,
    mem: &Memory,
    entry: &mut [u8; CmdQueueEntry::SIZE],
    input: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Delivery {
    let e = View::<CmdQueueEntry>::new(entry);
    if e.get(CmdQueueEntry::r#type) != PCI_TRANSPORT {
        return Delivery::BadDescriptor;
    }
    let (in_len, out_len) = (e.get(CmdQueueEntry::input_length) as usize, e.get(CmdQueueEntry::output_length) as usize);
    if !(8..=MAX_LENGTH).contains(&in_len) {
        return Delivery::InLength;
    }
    if !(8..=MAX_LENGTH).contains(&out_len) {
        return Delivery::OutLength;
    }
    let token = e.get(CmdQueueEntry::token);
    let in_ptr = u64::from(e.get(CmdQueueEntry::input_mailbox_pointer_63_32)) << 32 | u64::from(raw32(entry, 0x0c));
    let out_ptr = u64::from(e.get(CmdQueueEntry::output_mailbox_pointer_63_32)) << 32 | u64::from(raw32(entry, 0x34));
    if in_len > INLINE && !in_ptr.is_multiple_of(BOX as u64) {
        return Delivery::InPtrAlign;
    }
    if out_len > INLINE && !out_ptr.is_multiple_of(BOX as u64) {
        return Delivery::OutPtrAlign;
    }
    input.reserve(in_len);
    input.extend_from_slice(&e.bytes(CmdQueueEntry::command_input_inline_data)[..in_len.min(INLINE)]);
    if let Err(d) = read_boxes(mem, in_ptr, token, in_len, input) {
        return d;
    }
    out.resize(out_len, 0);
    if cmd::execute(nic, card, ctl, fid, input, out).is_err()
        && let Some(f) = ctl.functions.get_mut(&fid)
    {
        f.stats.refused += 1;
    }
    let n = out_len.min(INLINE);
    ViewMut::<CmdQueueEntry>::new(entry).set_bytes(CmdQueueEntry::command_output_inline_data, &out[..n]);
    match write_boxes(mem, out_ptr, token, out) {
        Ok(()) => Delivery::Ok,
        Err(d) => d,
    }
}

fn raw32(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_be_bytes(*b))
}

/// The head of mailbox `n` at `ptr`: checked, and where the next one is.
fn check_box(mem: &Memory, ptr: u64, token: u32, n: usize) -> Result<u64, Delivery> {
    const HEAD: usize = 0x230;
    let mut tail = [0; CmdIfBox::SIZE];
    let at = ptr.checked_add(HEAD as u64).ok_or(Delivery::FwInternal)?;
    mem.dma_read(at, &mut tail[HEAD..]).map_err(|_| Delivery::FwInternal)?;
    let b = View::<CmdIfBox>::new(&tail);
    if b.get(CmdIfBox::token) != token {
        return Err(Delivery::Token);
    }
    if b.get(CmdIfBox::block_number) as usize != n {
        return Err(Delivery::BlockNumber);
    }
    Ok(u64::from(b.get(CmdIfBox::next_pointer_63_32)) << 32 | u64::from(raw32(&tail, 0x234)))
}

fn read_boxes(mem: &Memory, mut ptr: u64, token: u32, len: usize, input: &mut Vec<u8>) -> Result<(), Delivery> {
    let mut n = 0;
    while input.len() < len {
        if !ptr.is_multiple_of(BOX as u64) {
            return Err(Delivery::InPtrAlign);
        }
        let next = check_box(mem, ptr, token, n)?;
        let from = input.len();
        input.resize(len.min(from + BOX), 0);
        mem.dma_read(ptr, &mut input[from..]).map_err(|_| Delivery::FwInternal)?;
        ptr = next;
        n += 1;
    }
    Ok(())
}

fn write_boxes(mem: &Memory, mut ptr: u64, token: u32, out: &[u8]) -> Result<(), Delivery> {
    for (n, chunk) in out.get(INLINE..).unwrap_or(&[]).chunks(BOX).enumerate() {
        if !ptr.is_multiple_of(BOX as u64) {
            return Err(Delivery::OutPtrAlign);
        }
        let next = check_box(mem, ptr, token, n)?;
        mem.dma_write(ptr, chunk).map_err(|_| Delivery::FwInternal)?;
        ptr = next;
    }
    Ok(())
}
