//! A function's window in a BAR.

use std::sync::Arc;

use sfnic_device_model::endpoint::Endpoint;
use sfnic_device_model::{Card, Nic};

/// Bytes of a UAR page.
const PAGE: u64 = 4096;

/// A window through which a driver reaches one function.
#[derive(Clone, Debug)]
pub struct Window {
    nic: Arc<Nic>,
    card: usize,
    bar: u8,
    base: u64,
    /// Of another guest, whose device it is.
    endpoint: Option<Arc<Endpoint>>,
}

impl Window {
    /// BAR 0: the physical function.
    pub fn pf(nic: Arc<Nic>, card: usize) -> Self {
        Self { nic, card, bar: 0, base: 0, endpoint: None }
    }

    /// BAR 0 of a passthrough slice's device.
    pub fn endpoint(nic: Arc<Nic>, endpoint: Arc<Endpoint>) -> Self {
        Self { nic, card: endpoint.card, bar: 0, base: 0, endpoint: Some(endpoint) }
    }

    /// Window `index` of BAR 2.
    pub fn sf(nic: Arc<Nic>, card: usize, index: u16) -> Self {
        let base = u64::from(index) << nic.cards[card].config.log_sf_window;
        Self { nic, card, bar: 2, base, endpoint: None }
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
        self.write(u64::from(uar) * PAGE + offset, data);
    }
}
