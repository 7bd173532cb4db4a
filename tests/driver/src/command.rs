//! The command queue: entries, mailboxes, doorbell.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;

use sfnic_firmware_cmds::entries::{Eqe, InitSeg, event};
use sfnic_firmware_cmds::layout::{Field, Layout, Sub, View, ViewMut};
use sfnic_firmware_cmds::layouts::{CmdIfBox, CmdQueueEntry};
use sfnic_firmware_cmds::opcode::Opcode;
use sfnic_firmware_cmds::{Refusal, Status, Syndrome};

use crate::eq::Eq;
use crate::memory::{GuestMemory, PAGE};
use crate::window::Window;

/// Entries of the queue.
pub const SLOTS: u32 = 32;
/// Bytes of an entry.
pub const ENTRY: u64 = CmdQueueEntry::SIZE as u64;
/// Type of an entry that comes over PCI.
pub const PCI_TRANSPORT: u32 = 7;
/// Bytes of a command that lie in the entry itself.
pub const INLINE: usize = 16;
/// Bytes of a command that a mailbox carries.
pub const BOX: usize = 512;
/// Mailboxes lie on addresses that are multiples of this.
const BOX_STRIDE: u64 = 1024;

/// Why a command has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CmdError {
    /// The device executed it and refused.
    #[error("status {status:#x}, syndrome {:#x}: {}", syndrome.0, syndrome.text())]
    Refused {
        /// Status of the answer.
        status: u8,
        /// Syndrome of the answer.
        syndrome: Syndrome,
    },
    /// The device could not read or write the entry's parts.
    #[error("delivery status {0:#x}")]
    Delivery(u8),
    /// The device left the entry alone.
    #[error("the entry is still the device's")]
    NoAnswer,
    /// No event came for the command.
    #[error("no event for the command")]
    NoEvent,
}

impl CmdError {
    /// The status of a refusal.
    pub fn status(self) -> Option<u8> {
        match self {
            Self::Refused { status, .. } => Some(status),
            _ => None,
        }
    }

    /// Whether the device refused with this status.
    pub fn is(self, status: Status) -> bool {
        self.status() == Some(status as u8)
    }

    /// Whether the device refused for this reason.
    pub fn because(self, why: Syndrome) -> bool {
        matches!(self, Self::Refused { syndrome, .. } if syndrome == why)
    }
}

impl From<Refusal> for CmdError {
    fn from(r: Refusal) -> Self {
        Self::Refused { status: r.status as u8, syndrome: r.syndrome }
    }
}

/// The answer to a command, with the layout of its output.
pub struct Out<O> {
    bytes: Vec<u8>,
    of: PhantomData<fn() -> O>,
}

impl<O: Layout> Out<O> {
    /// The answer.
    pub fn view(&self) -> View<'_, O> {
        View::new(&self.bytes)
    }
    /// A field of the answer.
    pub fn get(&self, f: Field<O>) -> u32 {
        self.view().get(f)
    }
    /// A structure in the answer.
    pub fn sub<T: Layout>(&self, f: Sub<O, T>) -> View<'_, T> {
        self.view().sub(f)
    }
    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<O> std::fmt::Debug for Out<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Out({} bytes)", self.bytes.len())
    }
}

/// A chain of mailboxes in guest memory.
#[derive(Debug, Clone, Default)]
pub struct Chain(Vec<u64>);

impl Chain {
    /// Address of the first box, 0 for none.
    pub fn head(&self) -> u64 {
        self.0.first().copied().unwrap_or(0)
    }
    /// Addresses of all boxes.
    pub fn boxes(&self) -> &[u64] {
        &self.0
    }

    fn grow(&mut self, mem: &GuestMemory, boxes: usize) {
        while self.0.len() < boxes {
            let page = mem.alloc(PAGE);
            self.0.extend((0..PAGE / BOX_STRIDE).map(|i| page + i * BOX_STRIDE));
        }
    }

    /// Writes the heads of the first `n` boxes.
    fn link(&self, mem: &GuestMemory, n: usize, token: u8) {
        for (i, at) in self.0.iter().take(n).enumerate() {
            let next = if i + 1 < n { self.0[i + 1] } else { 0 };
            write_box_head(mem, *at, next, i as u32, token);
        }
    }
}

/// Writes what a mailbox at `at` says of itself.
pub fn write_box_head(mem: &GuestMemory, at: u64, next: u64, number: u32, token: u8) {
    let mut raw = [0; CmdIfBox::SIZE];
    let mut b = ViewMut::<CmdIfBox>::new(&mut raw);
    b.set(CmdIfBox::next_pointer_63_32, (next >> 32) as u32);
    b.set(CmdIfBox::next_pointer_31_10, CmdIfBox::next_pointer_31_10.of_dword(next as u32));
    b.set(CmdIfBox::block_number, number).set(CmdIfBox::token, token.into());
    let head = BOX.min(CmdIfBox::next_pointer_63_32.dword() * 4);
    mem.put(at + head as u64, &raw[head..]);
}

/// What an entry of the queue says.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Type; 7 for PCI.
    pub kind: u32,
    /// Bytes of the input.
    pub in_len: u32,
    /// Address of the first input mailbox.
    pub in_ptr: u64,
    /// First bytes of the input.
    pub inline: [u8; INLINE],
    /// Address of the first output mailbox.
    pub out_ptr: u64,
    /// Bytes of the output.
    pub out_len: u32,
    /// Token, the same in every mailbox.
    pub token: u8,
    /// Whose the entry is: the device's while set.
    pub ownership: bool,
}

impl Entry {
    /// The entry as the device reads it. Pointers may be misaligned.
    pub fn bytes(&self) -> [u8; ENTRY as usize] {
        let mut raw = [0; ENTRY as usize];
        let mut e = ViewMut::<CmdQueueEntry>::new(&mut raw);
        e.set(CmdQueueEntry::r#type, self.kind).set(CmdQueueEntry::input_length, self.in_len);
        e.set(CmdQueueEntry::input_mailbox_pointer_63_32, (self.in_ptr >> 32) as u32);
        e.set_bytes(CmdQueueEntry::command_input_inline_data, &self.inline);
        e.set(CmdQueueEntry::output_mailbox_pointer_63_32, (self.out_ptr >> 32) as u32);
        e.set(CmdQueueEntry::output_length, self.out_len).set(CmdQueueEntry::token, self.token.into());
        e.set(CmdQueueEntry::ownership, self.ownership.into());
        // The low halves with the bits that should be zero.
        for (f, ptr) in [
            (CmdQueueEntry::input_mailbox_pointer_31_9, self.in_ptr),
            (CmdQueueEntry::output_mailbox_pointer_31_9, self.out_ptr),
        ] {
            raw[f.dword() * 4..][..4].copy_from_slice(&(ptr as u32).to_be_bytes());
        }
        raw
    }
}

/// Where commands go, and how their end is learnt.
pub struct CommandQueue {
    window: Window,
    mem: Arc<GuestMemory>,
    ring: u64,
    token: Cell<u8>,
    slot: Cell<u32>,
    input: RefCell<Chain>,
    output: RefCell<Chain>,
    events: RefCell<Option<Eq>>,
}

impl CommandQueue {
    /// A queue that the device does not know of yet.
    pub fn new(window: Window, mem: Arc<GuestMemory>) -> Self {
        let ring = mem.alloc(PAGE);
        Self {
            window,
            mem,
            ring,
            token: Cell::new(0),
            slot: Cell::new(0),
            input: RefCell::default(),
            output: RefCell::default(),
            events: RefCell::new(None),
        }
    }

    /// Tells the device where the queue is.
    pub fn attach(&self) {
        self.window.write32(InitSeg::cmdq_phy_addr_63_32.dword() as u64 * 4, (self.ring >> 32) as u32);
        self.window.write32(InitSeg::cmdq_phy_addr_31_12.dword() as u64 * 4, self.ring as u32);
    }

    /// From here on the end of a command is an event of this queue, until
    /// [`CommandQueue::use_polling`].
    pub fn use_events(&self, eq: Eq) {
        *self.events.borrow_mut() = Some(eq);
    }

    /// From here on the end of a command is seen by its ownership bit. Returns
    /// the event queue.
    pub fn use_polling(&self) -> Option<Eq> {
        self.events.borrow_mut().take()
    }

    /// Address of an entry.
    pub fn entry_at(&self, slot: u32) -> u64 {
        self.ring + u64::from(slot % SLOTS) * ENTRY
    }

    /// Gives entries (a bit each) to the device.
    pub fn doorbell(&self, slots: u32) {
        self.window.write32(InitSeg::command_doorbell_vector.dword() as u64 * 4, slots);
    }

    /// A chain of mailboxes for `len` bytes of a command, those in the entry
    /// included, linked and with this token.
    pub fn chain(&self, len: usize, token: u8) -> Chain {
        let n = len.saturating_sub(INLINE).div_ceil(BOX);
        let mut c = Chain::default();
        c.grow(&self.mem, n);
        c.0.truncate(n);
        c.link(&self.mem, n, token);
        c
    }

    /// Writes an entry, rings, and reads it back. Delivery errors are reported
    /// as such; the answer's own status is not looked at.
    pub fn submit(&self, slot: u32, entry: &Entry) -> Result<[u8; ENTRY as usize], CmdError> {
        let at = self.entry_at(slot);
        self.mem.put(at, &entry.bytes());
        self.doorbell(1 << (slot % SLOTS));
        let mut raw = [0; ENTRY as usize];
        self.mem.read(at, &mut raw);
        let e = View::<CmdQueueEntry>::new(&raw);
        if e.is(CmdQueueEntry::ownership) {
            return Err(CmdError::NoAnswer);
        }
        match e.get(CmdQueueEntry::status) {
            0 => Ok(raw),
            n => Err(CmdError::Delivery(n as u8)),
        }
    }

    /// Runs a command: `input` as it is, an answer of `out_len` bytes (at
    /// least 8). The answer's status is the caller's to look at.
    pub fn exec(&self, input: &[u8], out_len: usize) -> Result<Vec<u8>, CmdError> {
        let token = self.token.get().wrapping_add(1).max(1);
        self.token.set(token);
        let slot = self.slot.get();
        self.slot.set((slot + 1) % SLOTS);
        let boxes = |len: usize| len.saturating_sub(INLINE).div_ceil(BOX);
        let (mut in_chain, mut out_chain) = (self.input.borrow_mut(), self.output.borrow_mut());
        in_chain.grow(&self.mem, boxes(input.len()));
        out_chain.grow(&self.mem, boxes(out_len));
        in_chain.link(&self.mem, boxes(input.len()), token);
        out_chain.link(&self.mem, boxes(out_len), token);
        let mut inline = [0; INLINE];
        let n = input.len().min(INLINE);
        inline[..n].copy_from_slice(&input[..n]);
        for (chunk, at) in input.get(INLINE..).unwrap_or(&[]).chunks(BOX).zip(&in_chain.0) {
            self.mem.put(*at, chunk);
        }
        let entry = Entry {
            kind: PCI_TRANSPORT,
            in_len: input.len() as u32,
            in_ptr: if boxes(input.len()) > 0 { in_chain.head() } else { 0 },
            inline,
            out_ptr: if boxes(out_len) > 0 { out_chain.head() } else { 0 },
            out_len: out_len as u32,
            token,
            ownership: true,
        };
        let answered = self.submit(slot, &entry);
        if answered != Err(CmdError::NoAnswer) {
            self.expect_event(slot)?;
        }
        let entry = answered?;
        let mut out = vec![0; out_len];
        let n = out_len.min(INLINE);
        let from = CmdQueueEntry::command_output_inline_data.offset();
        out[..n].copy_from_slice(&entry[from..from + n]);
        for (chunk, at) in out.get_mut(INLINE..).unwrap_or(&mut []).chunks_mut(BOX).zip(&out_chain.0) {
            self.mem.read(*at, chunk);
        }
        Ok(out)
    }

    fn expect_event(&self, slot: u32) -> Result<(), CmdError> {
        let mut events = self.events.borrow_mut();
        let Some(eq) = events.as_mut() else { return Ok(()) };
        let mut told = false;
        while let Some(e) = eq.poll() {
            if e.kind() == event::COMMAND {
                told |= e.view().get(Eqe::cmd_vector) == 1 << slot;
            }
        }
        eq.arm();
        if told { Ok(()) } else { Err(CmdError::NoEvent) }
    }

    /// Runs a command with layouts: `fill` sets the input's fields, `tail` is
    /// what follows its fixed part, `more` how many bytes follow the output's.
    pub fn typed<I: Layout, O: Layout>(
        &self,
        opcode: Opcode,
        tail: &[u8],
        more: usize,
        fill: impl FnOnce(&mut ViewMut<'_, I>),
    ) -> Result<Out<O>, CmdError> {
        let mut input = vec![0; I::SIZE + tail.len()];
        fill(&mut ViewMut::new(&mut input));
        input[I::SIZE..].copy_from_slice(tail);
        set_opcode(&mut input, opcode);
        let bytes = self.exec(&input, O::SIZE + more)?;
        check(&bytes)?;
        Ok(Out { bytes, of: PhantomData })
    }
}

/// Writes the opcode, which every command has in the same place.
pub fn set_opcode(input: &mut [u8], opcode: Opcode) {
    input[..2].copy_from_slice(&opcode.0.to_be_bytes());
}

/// The status and syndrome of an answer, which every answer has in the same
/// place.
pub fn check(answer: &[u8]) -> Result<(), CmdError> {
    use sfnic_firmware_cmds::layouts::NopOut;
    let v = View::<NopOut>::new(answer);
    match v.get(NopOut::status) {
        0 => Ok(()),
        status => Err(CmdError::Refused { status: status as u8, syndrome: Syndrome(v.get(NopOut::syndrome)) }),
    }
}
