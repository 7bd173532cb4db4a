//! What each command does to the device.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tracing::{debug, error, info, warn};

use super::backing::Backing;
use super::connection::{Options, ReplySink};
use super::counters::Counters;
use super::device::{BarMapping, PciDevice};
use super::dma::DmaMap;
use super::error::{Disconnect, Reject};
use super::irq::{EventFd, VectorTable};
use super::payload::{
    self, DmaMapRequest, DmaUnmapRequest, IrqAction, IrqData, RegionAccess, RegionInfo, SetIrqs, VersionRequest,
    WriteMulti,
};
use super::protocol::{
    BAR_COUNT, CONFIG_SIZE, Command, HEADER_LEN, Header, IRQ_COUNT, IRQ_ERROR, IRQ_INTX, IRQ_MSIX, MAX_DATA_XFER,
    MAX_MSG_FDS, MessageType, PAGE_SIZE, REGION_CONFIG, REGION_COUNT,
};
use super::version;

/// Offset of the command register in configuration space.
const PCI_COMMAND: u64 = 0x04;
/// Its bit that allows DMA.
const PCI_COMMAND_MASTER: u8 = 0x04;
/// Offset of the interrupt pin register.
const PCI_INTERRUPT_PIN: u32 = 0x3d;

/// The state of one client: everything but its bytes.
pub(super) struct Session {
    device: Arc<dyn PciDevice>,
    counters: Arc<Counters>,
    /// The handshake is done and the device has been told.
    attached: bool,
    /// What the client said in it.
    greeting: Vec<u8>,
    vectors: Arc<VectorTable>,
    memory: Arc<DmaMap>,
    backing: Backing,
    /// Guest memory has been looked at after the guest enabled DMA.
    memory_judged: bool,
    /// The reply under construction, header included.
    tx: Vec<u8>,
}

impl Session {
    pub(super) fn new(
        device: Arc<dyn PciDevice>,
        options: &Options,
        peer: Option<u32>,
        counters: Arc<Counters>,
    ) -> Self {
        let vectors = Arc::new(VectorTable::new(device.msix_vectors(), counters.clone()));
        Self {
            device,
            counters,
            attached: false,
            greeting: vec![],
            vectors,
            memory: Arc::new(DmaMap::empty()),
            backing: Backing::new(peer, options.allow_unsealed),
            memory_judged: false,
            tx: Vec::new(),
        }
    }

    pub(super) fn attached(&self) -> bool {
        self.attached
    }

    /// The messages that bring a session where this one is: the greeting, a message for each
    /// range of memory and each vector, with its descriptor.
    pub(super) fn told(&self) -> Vec<(Vec<u8>, Option<Arc<File>>)> {
        if !self.attached {
            return vec![];
        }
        let memory = self.memory.regions().iter().map(|r| {
            let (request, file) = r.request();
            (Header::message(Command::DmaMap, &request.bytes()), file)
        });
        let vectors = self.vectors.armed().into_iter();
        let vectors = vectors.map(|(vector, eventfd)| {
            (Header::message(Command::DeviceSetIrqs, &SetIrqs::arm(IRQ_MSIX, vector)), Some(eventfd))
        });
        let greeting = (Header::message(Command::Version, &self.greeting), None);
        std::iter::once(greeting).chain(memory).chain(vectors).collect()
    }

    /// All messages at hand have been handled.
    pub(super) fn idle(&self) {
        if self.attached {
            self.device.idle();
        }
    }

    /// Handles one message and answers it if it wants an answer.
    ///
    /// # Errors
    /// Only what ends the connection.
    pub(super) fn handle(
        &mut self,
        header: &Header,
        payload: &[u8],
        fds: Vec<OwnedFd>,
        sink: &mut dyn ReplySink,
    ) -> Result<(), Disconnect> {
        if header.message_type() == MessageType::Reply {
            // We send no commands, so it answers nothing.
            self.counters.unsolicited();
            return Ok(());
        }
        self.tx.clear();
        self.tx.extend_from_slice(&[0; HEADER_LEN]);
        let result = self.execute(header, payload, fds);
        let (attachment, errno) = match &result {
            Ok(attachment) => (attachment.as_ref(), 0),
            Err(reject) => {
                self.log(reject);
                self.tx.truncate(HEADER_LEN);
                (None, reject.errno())
            }
        };
        if header.wants_reply() {
            let reply = header.reply(self.tx.len(), errno);
            self.tx[..HEADER_LEN].copy_from_slice(&reply);
            match attachment {
                Some(fd) => sink.send(&self.tx, Some(fd.as_fd()))?,
                None => sink.send(&self.tx, None)?,
            }
        }
        if self.tx.capacity() > MAX_DATA_XFER / 2 {
            self.tx = Vec::new();
        }
        match result {
            Err(Reject::VersionMajor { .. }) => Err(Disconnect::Version),
            _ => Ok(()),
        }
    }

    fn log(&self, reject: &Reject) {
        let kind = reject.kind();
        if self.counters.reject(kind) {
            warn!(?kind, errno = reject.errno(), "request refused: {reject}; more of this kind are only counted");
        } else {
            debug!(?kind, "request refused: {reject}");
        }
    }

    /// Carries out a command and puts its reply's payload behind the header
    /// in `tx`. Returns a descriptor to send along.
    fn execute(&mut self, header: &Header, payload: &[u8], fds: Vec<OwnedFd>) -> Result<Option<Arc<OwnedFd>>, Reject> {
        let command = Command::from_raw(header.command);
        self.counters.command(command);
        if !header.is_clean_command() {
            return Err(Reject::HeaderFlags(header.flags));
        }
        let command = command.ok_or(Reject::UnknownCommand(header.command))?;
        let most_fds = match command {
            Command::DmaMap => 1,
            Command::DeviceSetIrqs => MAX_MSG_FDS,
            _ => 0,
        };
        if fds.len() > most_fds {
            return Err(Reject::FdCount { command, got: fds.len(), expected: most_fds });
        }
        if command == Command::Version {
            return self.version(payload).map(|()| None);
        }
        if !self.attached {
            return Err(Reject::NotNegotiated(command));
        }
        match command {
            Command::DmaMap => self.dma_map(payload, fds.into_iter().next())?,
            Command::DmaUnmap => self.dma_unmap(payload)?,
            Command::DeviceGetInfo => {
                payload::parse_device_info(payload)?;
                payload::put_device_info(&mut self.tx);
            }
            Command::DeviceGetRegionInfo => return self.region_info(payload),
            Command::DeviceGetIrqInfo => self.irq_info(payload)?,
            Command::DeviceSetIrqs => self.set_irqs(payload, fds)?,
            Command::RegionRead => self.region_read(payload)?,
            Command::RegionWrite => self.region_write(payload)?,
            Command::RegionWriteMulti => self.region_write_multi(payload)?,
            Command::DeviceReset => {
                payload::exact(command, payload, 0)?;
                self.device.reset();
            }
            _ => return Err(Reject::Unsupported(command)),
        }
        Ok(None)
    }

    fn version(&mut self, payload: &[u8]) -> Result<(), Reject> {
        if self.attached {
            return Err(Reject::AlreadyNegotiated);
        }
        let request = VersionRequest::parse(payload)?;
        version::negotiate(&request, &mut self.tx)?;
        self.attached = true;
        self.greeting = payload.to_vec();
        info!(major = request.major, minor = request.minor, "client attached");
        self.device.attached(self.vectors.clone());
        Ok(())
    }

    // ---- guest memory ----

    fn dma_map(&mut self, payload: &[u8], fd: Option<OwnedFd>) -> Result<(), Reject> {
        let request = DmaMapRequest::parse(payload)?;
        let memory = self.memory.with_mapped(&request, fd, &mut self.backing)?;
        self.publish(memory);
        Ok(())
    }

    fn dma_unmap(&mut self, payload: &[u8]) -> Result<(), Reject> {
        let request = DmaUnmapRequest::parse(payload)?;
        if let Some(memory) = self.memory.with_unmapped(&request)? {
            self.publish(memory);
        }
        // The reply repeats the request.
        self.tx.extend_from_slice(payload);
        Ok(())
    }

    /// Hands a new snapshot to the device, and lets go of the old one. The
    /// client's answer is sent afterwards, so what was unmapped is out of use
    /// by then; a device that breaks this is reported.
    fn publish(&mut self, memory: DmaMap) {
        let memory = Arc::new(memory);
        self.device.dma_changed(memory.clone());
        let old = std::mem::replace(&mut self.memory, memory);
        if Arc::into_inner(old).is_none() && self.counters.stale_snapshot() {
            error!("the device still uses an old snapshot of guest memory");
        }
    }

    /// When the guest allows DMA for the first time, says so if none can
    /// work: better one clear line than a guest that waits for nothing.
    fn judge_memory(&mut self, offset: u64, data: &[u8]) {
        if self.memory_judged {
            return;
        }
        let command =
            PCI_COMMAND.checked_sub(offset).and_then(|at| data.get(usize::try_from(at).ok()?)).copied().unwrap_or(0);
        // Behind an IOMMU there is no memory until the driver maps some.
        if command & PCI_COMMAND_MASTER == 0 || self.memory.regions().is_empty() {
            return;
        }
        self.memory_judged = true;
        const REMEDY: &str =
            "start QEMU with -object memory-backend-memfd,id=ram,share=on,size=... and -machine memory-backend=ram";
        if !self.memory.is_accessible() {
            error!("no guest memory is accessible, DMA cannot work; {REMEDY}");
        } else if self.backing.all_untouched() {
            error!("guest memory appears to be private to the client, DMA cannot work; {REMEDY}");
        }
    }

    // ---- regions ----

    fn region_size(&self, region: u32) -> Result<u64, Reject> {
        match region {
            0..BAR_COUNT => Ok(self.device.bar_size(region as u8)),
            REGION_CONFIG => Ok(CONFIG_SIZE),
            BAR_COUNT..REGION_COUNT => Ok(0), // ROM and VGA
            _ => Err(Reject::RegionIndex(region)),
        }
    }

    fn region_info(&mut self, payload: &[u8]) -> Result<Option<Arc<OwnedFd>>, Reject> {
        let (argsz, index) = payload::parse_region_info(payload)?;
        let size = self.region_size(index)?;
        let mapping = (index < BAR_COUNT && size > 0)
            .then(|| self.device.bar_mapping(index as u8))
            .flatten()
            .filter(|mapping| is_sound(mapping, size));
        let info = RegionInfo {
            index,
            size,
            offset: mapping.as_ref().map_or(0, |m| m.offset),
            mappable: mapping.is_some(),
            areas: mapping.as_ref().map_or(&[], |m| &m.areas),
        };
        let complete = info.put(argsz, &mut self.tx);
        Ok(mapping.filter(|_| complete).map(|m| m.fd))
    }

    /// Checks an access against limit and region. An empty one is allowed and
    /// reaches no device.
    fn check_access(&self, access: &RegionAccess) -> Result<(), Reject> {
        let &RegionAccess { offset, region, count } = access;
        let size = self.region_size(region)?;
        if usize::try_from(count).map_or(true, |c| c > MAX_DATA_XFER) {
            return Err(Reject::TransferSize(count.into()));
        }
        match offset.checked_add(count.into()) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Reject::RegionRange { region, offset, count, size }),
        }
    }

    fn region_read(&mut self, payload: &[u8]) -> Result<(), Reject> {
        let access = RegionAccess::parse_read(payload)?;
        self.check_access(&access)?;
        access.put(&mut self.tx);
        let at = self.tx.len();
        // At most the transfer limit, as just checked.
        self.tx.resize(at + access.count as usize, 0);
        let data = &mut self.tx[at..];
        if data.is_empty() {
            return Ok(());
        }
        match access.region {
            REGION_CONFIG => self.device.config_read(access.offset as u32, data),
            bar => self.device.bar_read(bar as u8, access.offset, data),
        }
        Ok(())
    }

    fn region_write(&mut self, payload: &[u8]) -> Result<(), Reject> {
        let (access, data) = RegionAccess::parse_write(payload)?;
        self.check_access(&access)?;
        self.write(&access, data);
        access.put(&mut self.tx);
        Ok(())
    }

    /// All writes or none: each is checked before the first is done.
    fn region_write_multi(&mut self, payload: &[u8]) -> Result<(), Reject> {
        let writes = WriteMulti::parse(payload)?;
        for (access, data) in writes.iter() {
            self.check_access(&access)?;
            if data.is_none() {
                return Err(Reject::TransferSize(access.count.into()));
            }
        }
        for (access, data) in writes.iter() {
            self.write(&access, data.unwrap_or_default());
        }
        self.tx.extend_from_slice(&writes.len().to_ne_bytes());
        Ok(())
    }

    /// Writes to a region; the access has been checked.
    fn write(&mut self, access: &RegionAccess, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        match access.region {
            REGION_CONFIG => {
                self.judge_memory(access.offset, data);
                self.device.config_write(access.offset as u32, data);
            }
            bar => self.device.bar_write(bar as u8, access.offset, data),
        }
    }

    // ---- interrupts ----

    /// How many interrupts a type has. The error interrupt is there because
    /// QEMU warns about a device without it; it is never raised, as QEMU would
    /// stop the guest. The request interrupt, for which QEMU would unplug the
    /// device, is not there.
    fn irq_count(&self, index: u32) -> Result<u32, Reject> {
        match index {
            IRQ_INTX => {
                let mut pin = [0];
                self.device.config_read(PCI_INTERRUPT_PIN, &mut pin);
                Ok(u32::from(pin[0] != 0))
            }
            IRQ_MSIX => Ok(self.vectors.len()),
            IRQ_ERROR => Ok(1),
            other if other < IRQ_COUNT => Ok(0),
            _ => Err(Reject::IrqIndex(index)),
        }
    }

    fn irq_info(&mut self, payload: &[u8]) -> Result<(), Reject> {
        let index = payload::parse_irq_info(payload)?;
        let count = self.irq_count(index)?;
        payload::put_irq_info(index, count, &mut self.tx);
        Ok(())
    }

    fn set_irqs(&mut self, payload: &[u8], fds: Vec<OwnedFd>) -> Result<(), Reject> {
        let request = SetIrqs::parse(payload)?;
        let SetIrqs { flags, index, start, count, data, action } = request;
        let max = self.irq_count(index)?;
        let out_of_range = Reject::IrqRange { index, start, count, max };
        let got = fds.len();
        let wrong_fds = |expected| Reject::FdCount { command: Command::DeviceSetIrqs, got, expected };
        if data != IrqData::EventFd && got != 0 {
            return Err(wrong_fds(0));
        }
        if count == 0 {
            // Disarms the whole type; allowed even if it has no interrupts.
            if (data, action, start) != (IrqData::None, IrqAction::Trigger, 0) {
                return Err(out_of_range);
            }
            if index == IRQ_MSIX {
                self.vectors.disarm_all();
            }
            return Ok(());
        }
        match start.checked_add(count) {
            Some(end) if end <= max => {}
            _ => return Err(out_of_range),
        }
        match (action, data) {
            (IrqAction::Trigger, IrqData::EventFd) if got == 0 => {
                if index == IRQ_MSIX {
                    self.vectors.disarm(start, count);
                }
            }
            (IrqAction::Trigger, IrqData::EventFd) => {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                if got != count {
                    return Err(wrong_fds(count));
                }
                // All are checked before the first is armed.
                let eventfds: Vec<EventFd> = fds.into_iter().map(EventFd::new).collect::<Result<_, _>>()?;
                if index == IRQ_MSIX {
                    self.vectors.arm(start, eventfds.into_iter());
                }
            }
            (IrqAction::Trigger, _) if index == IRQ_MSIX => self.trigger(start, count, data),
            // INTx and errors are never raised: nothing to mask or trigger.
            (_, IrqData::None | IrqData::Bool(_)) if index == IRQ_INTX => {}
            (IrqAction::Trigger, _) if index == IRQ_ERROR => {}
            _ => return Err(Reject::IrqAction { index, flags }),
        }
        Ok(())
    }

    /// Raises vectors at the client's wish; the range has been checked, so
    /// this ends after as many steps as there are vectors.
    fn trigger(&self, start: u32, count: u32, data: IrqData<'_>) {
        use super::device::Interrupts;
        let chosen = |i: usize| match data {
            IrqData::Bool(flags) => flags.get(i).is_some_and(|&b| b != 0),
            _ => true,
        };
        for (i, vector) in (start..start.saturating_add(count)).enumerate() {
            if let (true, Ok(vector)) = (chosen(i), u16::try_from(vector)) {
                self.vectors.raise(vector);
            }
        }
    }
}

/// Whether a mapping that the device offers can be passed on: whole pages
/// within the BAR, in order. One that is not is our own mistake.
fn is_sound(mapping: &BarMapping, size: u64) -> bool {
    let mut free = 0;
    let sound = mapping.offset.is_multiple_of(PAGE_SIZE)
        && mapping.areas.iter().all(|area| {
            let in_order = area.offset >= free && area.size > 0;
            let aligned = (area.offset | area.size).is_multiple_of(PAGE_SIZE);
            free = area.offset.saturating_add(area.size);
            in_order && aligned && free <= size
        });
    debug_assert!(sound, "the device offers a mapping that is not page aligned or not in its BAR");
    sound
}

impl Drop for Session {
    /// The client is gone: the device stops, then memory and eventfds go.
    fn drop(&mut self) {
        if !self.attached {
            return;
        }
        self.device.detached();
        self.publish(DmaMap::empty());
        self.vectors.disarm_all();
        info!("client detached");
    }
}
