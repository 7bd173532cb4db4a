//! A function's window in a BAR.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sfnic_device_model::endpoint::Endpoint;
use sfnic_device_model::world::Doorbells;
use sfnic_device_model::{Card, Nic};

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

/// A window through which a driver reaches one function.
#[derive(Clone, Debug)]
pub struct Window {
    nic: Arc<Nic>,
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
    pub fn pf(nic: Arc<Nic>, card: usize) -> Self {
        Self { nic, card, bar: 0, base: 0, pages: None, endpoint: None }
    }

    /// BAR 0 of a passthrough slice's device.
    pub fn endpoint(nic: Arc<Nic>, endpoint: Arc<Endpoint>) -> Self {
        Self { nic, card: endpoint.card, bar: 0, base: 0, pages: None, endpoint: Some(endpoint) }
    }

    /// Window `index` of BAR 2.
    pub fn sf(nic: Arc<Nic>, card: usize, index: u16) -> Self {
        let base = u64::from(index) << nic.cards[card].config.log_sf_window;
        Self { nic, card, bar: 2, base, pages: None, endpoint: None }
    }

    /// With UAR pages that nobody hears of.
    pub fn with_pages(self, pages: Option<Arc<Pages>>) -> Self {
        Self { pages, ..self }
    }

    /// The device.
    pub fn nic(&self) -> &Arc<Nic> {
        &self.nic
    }

    /// The card that the window belongs to.
    pub fn card(&self) -> &Card {
        &self.nic.cards[self.card]
    }

    /// Reads any bytes.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        match &self.endpoint {
            Some(e) => self.nic.endpoint_read(e, self.bar, offset, out),
            None => self.nic.bar_read(self.card(), self.bar, self.base + offset, out),
        }
    }

    /// Writes any bytes.
    pub fn write(&self, offset: u64, data: &[u8]) {
        match &self.endpoint {
            Some(e) => self.nic.endpoint_write(e, self.bar, offset, data),
            None => self.nic.bar_write(self.card(), self.bar, self.base + offset, data),
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
