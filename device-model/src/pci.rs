//! Configuration space of a physical function: identity, BARs, PCI Express,
//! MSI-X, and the vendor-specific gateway that the driver opens at probe.

use sfnic_firmware_cmds::profile::Profile;

/// Bytes of configuration space.
pub const CONFIG_SIZE: usize = 4096;
/// Byte offset of the MSI-X table in BAR 0.
pub const MSIX_TABLE: u64 = 0x2000;
/// Byte offset of the MSI-X pending bits in BAR 0.
pub const MSIX_PBA: u64 = 0x3000;
/// Device id of a virtual function (`mlx5_core_pci_table`: "ConnectX Family mlx5Gen Virtual
/// Function").
pub const VF_DEVICE_ID: u16 = 0x101e;
/// The most vectors that fit between table and pending bits.
pub const MSIX_MAX: u16 = 256;

mod reg {
    pub(super) const COMMAND: usize = 0x04;
    pub(super) const BAR: usize = 0x10;
    pub(super) const CAP_PTR: usize = 0x34;
    pub(super) const PM: usize = 0x40;
    pub(super) const PCIE: usize = 0x60;
    pub(super) const DEVCTL: usize = PCIE + 8;
    pub(super) const MSIX: usize = 0x9c;
    pub(super) const VSC: usize = 0xc0;
    pub(super) const VSC_CTRL: usize = VSC + 0x4;
    pub(super) const VSC_COUNTER: usize = VSC + 0x8;
    pub(super) const VSC_SEMAPHORE: usize = VSC + 0xc;
    pub(super) const VSC_END: usize = VSC + 0x18;
    pub(super) const DSN: usize = 0x100;
}

/// What a write to configuration space asks for beyond the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Function level reset (PCIe Device Control bit 15).
    FunctionReset,
}

/// Configuration space of one function.
#[derive(Debug)]
pub struct Config {
    bytes: Box<[u8; CONFIG_SIZE]>,
    writable: Box<[u8; CONFIG_SIZE]>,
    vsc_counter: u32,
}

/// Configuration space, to be kept.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct SavedConfig {
    bytes: Vec<u8>,
    vsc_counter: u32,
}

impl Config {
    /// The space of a function of `profile`'s card.
    pub fn new(profile: &Profile, vectors: u16, serial: u64, bar0: u64, bar2: u64) -> Self {
        let mut c = Self { bytes: Box::new([0; CONFIG_SIZE]), writable: Box::new([0; CONFIG_SIZE]), vsc_counter: 0 };
        c.put(0x00, &profile.vendor_id.to_le_bytes());
        c.put(0x02, &profile.device_id.to_le_bytes());
        c.put(0x06, &0x0010u16.to_le_bytes()); // capability list
        c.put(0x08, &[0x00, 0x00, 0x00, 0x02]); // Ethernet controller
        c.put(0x2c, &profile.vendor_id.to_le_bytes());
        c.put(0x2e, &profile.subsystem_id.to_le_bytes());
        c.allow(reg::COMMAND, &[0x46, 0x05]);
        c.allow(0x0c, &[0xff]);
        c.allow(0x3c, &[0xff]);
        for (bar, size) in [(0, bar0), (2, bar2)] {
            let at = reg::BAR + bar * 4;
            if size > 0 {
                c.put(at, &0x0cu64.to_le_bytes()); // 64 bit, prefetchable
                c.allow(at, &(!(size - 1)).to_le_bytes());
            }
        }
        c.put(reg::CAP_PTR, &[reg::PM as u8]);
        // Power management: version 3, stays in D0.
        c.put(reg::PM, &[0x01, reg::PCIE as u8, 0x03, 0x00, 0x08, 0x00]);
        // PCI Express: endpoint, version 2.
        c.put(reg::PCIE, &[0x10, reg::MSIX as u8, 0x02, 0x00]);
        c.put(reg::PCIE + 4, &0x1000_8002u32.to_le_bytes()); // FLR, role-based errors, 512 B payload
        c.put(reg::DEVCTL, &0x2910u16.to_le_bytes());
        c.allow(reg::DEVCTL, &[0xff, 0x7f]);
        c.put(reg::PCIE + 0x0c, &0x0040_0104u32.to_le_bytes()); // x16, 16 GT/s
        c.allow(reg::PCIE + 0x10, &[0xc3, 0x0f]);
        c.put(reg::PCIE + 0x12, &0x0104u16.to_le_bytes());
        c.put(reg::PCIE + 0x24, &0x0000_081fu32.to_le_bytes());
        c.allow(reg::PCIE + 0x28, &[0x1f, 0x04]);
        c.put(reg::PCIE + 0x2c, &0x0000_001eu32.to_le_bytes());
        c.put(reg::PCIE + 0x30, &0x0004u16.to_le_bytes());
        // MSI-X: table and pending bits in BAR 0.
        let table = vectors.clamp(1, MSIX_MAX) - 1;
        c.put(reg::MSIX, &[0x11, reg::VSC as u8]);
        c.put(reg::MSIX + 2, &table.to_le_bytes());
        c.allow(reg::MSIX + 2, &[0x00, 0xc0]);
        c.put(reg::MSIX + 4, &(MSIX_TABLE as u32).to_le_bytes());
        c.put(reg::MSIX + 8, &(MSIX_PBA as u32).to_le_bytes());
        // Vendor specific: the gateway with its semaphore.
        c.put(reg::VSC, &[0x09, 0x00, (reg::VSC_END - reg::VSC) as u8, 0x00]);
        // Device serial number.
        c.put(reg::DSN, &0x0001_0003u32.to_le_bytes());
        c.put(reg::DSN + 4, &serial.to_le_bytes());
        c
    }

    /// Gives it another device id.
    pub(crate) fn identify(&mut self, device: u16) {
        self.put(0x02, &device.to_le_bytes());
    }

    fn put(&mut self, at: usize, v: &[u8]) {
        self.bytes[at..at + v.len()].copy_from_slice(v);
    }

    fn allow(&mut self, at: usize, mask: &[u8]) {
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }

    /// Reads configuration space; bytes past its end read as ones.
    pub fn read(&mut self, offset: usize, out: &mut [u8]) {
        if offset < reg::VSC_COUNTER + 4 && offset + out.len() > reg::VSC_COUNTER {
            self.vsc_counter = self.vsc_counter.wrapping_add(1).max(1);
            let v = self.vsc_counter.to_le_bytes();
            self.put(reg::VSC_COUNTER, &v);
        }
        for (i, b) in out.iter_mut().enumerate() {
            *b = self.bytes.get(offset + i).copied().unwrap_or(0xff);
        }
    }

    /// Writes configuration space through its write masks.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> Effect {
        let covers = |at: usize| offset <= at && at < offset + data.len();
        for (i, v) in data.iter().enumerate() {
            let at = offset + i;
            if at < CONFIG_SIZE {
                let m = self.writable[at];
                self.bytes[at] = (self.bytes[at] & !m) | (v & m);
            }
        }
        if let (true, Some(d)) = (covers(reg::VSC_SEMAPHORE), data.get(reg::VSC_SEMAPHORE.wrapping_sub(offset)..)) {
            self.write_semaphore(d);
        }
        if let (true, Some(d)) = (covers(reg::VSC_CTRL), data.get(reg::VSC_CTRL.wrapping_sub(offset)..)) {
            // The space is remembered; status bits 31:29 stay 0: no space is modelled.
            let n = d.len().min(2);
            let d = d[..n].to_vec();
            self.put(reg::VSC_CTRL, &d);
        }
        if covers(reg::DEVCTL + 1) && data[reg::DEVCTL + 1 - offset] & 0x80 != 0 {
            return Effect::FunctionReset;
        }
        Effect::None
    }

    /// Free (0) takes any value that the counter gave out; held takes 0 only.
    fn write_semaphore(&mut self, d: &[u8]) {
        let Some(v) = d.first_chunk::<4>() else { return };
        let held = self.bytes[reg::VSC_SEMAPHORE..reg::VSC_SEMAPHORE + 4] != [0; 4];
        let v = u32::from_le_bytes(*v);
        if v == 0 || (!held && v == self.vsc_counter) {
            self.put(reg::VSC_SEMAPHORE, &v.to_le_bytes());
        }
    }

    /// Its bytes, and how often the gateway's counter was read.
    pub(crate) fn save(&self) -> SavedConfig {
        SavedConfig { bytes: self.bytes.to_vec(), vsc_counter: self.vsc_counter }
    }

    /// Becomes what it was; false where it was that of another device.
    #[must_use]
    pub(crate) fn restore(&mut self, saved: &SavedConfig) -> bool {
        let gateway = reg::VSC_CTRL..reg::VSC_END;
        let Some(bytes) = saved.bytes.first_chunk::<CONFIG_SIZE>() else { return false };
        let fixed = |at: usize| if gateway.contains(&at) { 0 } else { !self.writable[at] };
        if (0..CONFIG_SIZE).any(|at| (self.bytes[at] ^ bytes[at]) & fixed(at) != 0) {
            return false;
        }
        *self.bytes = *bytes;
        self.vsc_counter = saved.vsc_counter;
        true
    }

    /// What a reset leaves: identity stays, everything that software wrote goes.
    pub fn reset(&mut self) {
        self.write(reg::COMMAND, &[0, 0]);
        self.write(reg::MSIX + 2, &[0, 0]);
        self.put(reg::DEVCTL, &0x2910u16.to_le_bytes());
        self.put(reg::VSC_SEMAPHORE, &[0; 4]);
        self.put(reg::VSC_CTRL, &[0; 4]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(&Profile::builtin("connectx6dx").unwrap(), 64, 1, 1 << 20, 1 << 24)
    }

    fn dword(c: &mut Config, at: usize) -> u32 {
        let mut b = [0; 4];
        c.read(at, &mut b);
        u32::from_le_bytes(b)
    }

    #[test]
    fn capabilities_form_a_chain_that_ends() {
        let mut c = config();
        assert_eq!(dword(&mut c, 0), 0x101d_15b3);
        let mut at = (dword(&mut c, reg::CAP_PTR) & 0xff) as usize;
        let mut ids = vec![];
        while at != 0 {
            let head = dword(&mut c, at);
            ids.push(head & 0xff);
            at = (head >> 8 & 0xff) as usize;
        }
        assert_eq!(ids, [0x01, 0x10, 0x11, 0x09]);
    }

    #[test]
    fn the_gateway_lock_is_taken_once() {
        let mut c = config();
        assert_eq!(dword(&mut c, reg::VSC_SEMAPHORE), 0);
        let n = dword(&mut c, reg::VSC_COUNTER);
        c.write(reg::VSC_SEMAPHORE, &n.to_le_bytes());
        assert_eq!(dword(&mut c, reg::VSC_SEMAPHORE), n);
        let m = dword(&mut c, reg::VSC_COUNTER);
        c.write(reg::VSC_SEMAPHORE, &m.to_le_bytes());
        assert_eq!(dword(&mut c, reg::VSC_SEMAPHORE), n, "held");
        c.write(reg::VSC_CTRL, &3u16.to_le_bytes());
        assert_eq!(dword(&mut c, reg::VSC_CTRL) >> 29, 0, "space not supported");
        c.write(reg::VSC_SEMAPHORE, &[0; 4]);
        assert_eq!(dword(&mut c, reg::VSC_SEMAPHORE), 0);
    }

    #[test]
    fn a_function_level_reset_is_seen() {
        let mut c = config();
        assert_eq!(c.write(reg::DEVCTL, &0xa910u16.to_le_bytes()), Effect::FunctionReset);
        assert_eq!(c.write(reg::DEVCTL, &0x2910u16.to_le_bytes()), Effect::None);
        assert_eq!(c.write(CONFIG_SIZE - 1, &[1, 2, 3]), Effect::None);
    }
}
