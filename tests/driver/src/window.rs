//! A function's window in a BAR.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use sfnic_device_model::Nic;
use sfnic_device_model::endpoint::Endpoint;
use sfnic_device_model::world::Doorbells;

/// Bytes of a UAR page.
const PAGE: u64 = 4096;

/// UAR pages that are plain memory, in pieces of 8 bytes.
#[derive(Debug, Default)]
pub struct Pages(Mutex<BTreeMap<(u8, u64), [u8; 8]>>);

impl Pages {
    fn put(&self, bar: u8, offset: u64, data: &[u8]) {
        let mut all = self.0.lock();
        for (at, byte) in (offset..).zip(data) {
            all.entry((bar, at & !7)).or_default()[(at & 7) as usize] = *byte;
        }
    }
}

impl Doorbells for Pages {
    fn take(&self, bar: u8, offset: u64) -> [u8; 8] {
        self.0.lock().remove(&(bar, offset)).unwrap_or_default()
    }
}

/// The device that is there at present: another one may take its place.
pub type Chip = Arc<RwLock<Arc<Nic>>>;

/// A window through which a driver reaches one function.
#[derive(Clone, Debug)]
pub struct Window {
    chip: Chip,
    card: usize,
    bar: u8,
    base: u64,
    /// UAR pages that are plain memory.
    pages: Option<Arc<Pages>>,
    /// Of another guest, whose device it is.
    endpoint: Option<Arc<Endpoint>>,
}

impl Window {
    /// BAR 0: the physical function.
    pub fn pf(chip: Chip, card: usize) -> Self {
        Self { chip, card, bar: 0, base: 0, pages: None, endpoint: None }
    }

    /// BAR 0 of a passthrough slice's device.
    pub fn endpoint(chip: Chip, endpoint: Arc<Endpoint>) -> Self {
        Self { chip, card: endpoint.card, bar: 0, base: 0, pages: None, endpoint: Some(endpoint) }
    }

    /// Window `index` of BAR 2.
    pub fn sf(chip: Chip, card: usize, index: u16) -> Self {
        let base = u64::from(index) << chip.read().cards[card].config.log_sf_window;
        Self { chip, card, bar: 2, base, pages: None, endpoint: None }
    }

    /// With UAR pages that nobody hears of.
    pub fn with_pages(self, pages: Option<Arc<Pages>>) -> Self {
        Self { pages, ..self }
    }

    /// Reads any bytes.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        let nic = self.chip.read();
        match &self.endpoint {
            Some(e) => nic.endpoint_read(e, self.bar, offset, out),
            None => nic.bar_read(&nic.cards[self.card], self.bar, self.base + offset, out),
        }
    }

    /// Writes any bytes.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let nic = self.chip.read();
        match &self.endpoint {
            Some(e) => nic.endpoint_write(e, self.bar, offset, data),
            None => nic.bar_write(&nic.cards[self.card], self.bar, self.base + offset, data),
        }
    }

    /// Reads a big-endian register.
    pub fn read32(&self, offset: u64) -> u32 {
        let mut b = [0; 4];
        self.read(offset, &mut b);
        u32::from_be_bytes(b)
    }

    /// Writes a big-endian register.
    pub fn write32(&self, offset: u64, value: u32) {
        self.write(offset, &value.to_be_bytes());
    }

    /// Writes to a UAR page.
    pub fn ring(&self, uar: u32, offset: u64, data: &[u8]) {
        let at = u64::from(uar) * PAGE + offset;
        match &self.pages {
            Some(pages) => pages.put(self.bar, self.base + at, data),
            None => self.write(at, data),
        }
    }
}
