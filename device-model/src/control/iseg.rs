//! The init segment: the first pages of a function's window, through which the
//! driver finds the command queue and watches the device's health.

use sfnic_firmware_cmds::entries::InitSeg;
use sfnic_firmware_cmds::layout::Field;

/// Bytes of the init segment (three pages, the last one shared with MSI-X).
pub const ISEG_SIZE: u64 = 0x2010;
/// log2 of the command queue's entries.
pub const LOG_CMDQ_SIZE: u32 = 5;
/// log2 of an entry's bytes.
pub const LOG_CMDQ_STRIDE: u32 = 6;
/// Version of the command interface that drivers insist on.
const CMD_INTERFACE_REV: u32 = 5;

/// What a write to the init segment asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsegWrite {
    /// Nothing further.
    Done,
    /// Command queue entries (a bit each) are the device's.
    Doorbell(u32),
    /// The driver switches the function's interface off.
    Disable,
    /// The driver wants the firmware to begin again.
    FirmwareReset,
    /// The register cannot be written, or is not modelled.
    Unmodelled,
}

/// `nic_interface`: nobody has a command queue here. A driver that has one
/// takes this for a fatal error (`MLX5_SENSOR_NIC_DISABLED`): the function was
/// reset behind its back.
const DISABLED: u32 = 1;
/// `nic_interface`, written: the firmware is to begin again.
const SW_RESET: u32 = 7;

/// The registers that the driver writes.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Iseg {
    addr_h: u32,
    addr_l: u32,
}

impl Default for Iseg {
    /// Before a driver.
    fn default() -> Self {
        Self { addr_h: 0, addr_l: InitSeg::nic_interface.in_dword(0, DISABLED) }
    }
}

impl Iseg {
    /// Address of the command queue, where the driver has set one.
    pub fn cmdq_addr(&self) -> Option<u64> {
        let l = self.addr_l & InitSeg::cmdq_phy_addr_31_12.mask();
        let addr = (u64::from(self.addr_h) << 32) | u64::from(l);
        (addr != 0).then_some(addr)
    }

    /// The dword at byte `off` (a multiple of 4), or `None` where the model
    /// has no such register. `now_ns` drives timer and health counter,
    /// `khz` is the timer's rate.
    pub fn read(&self, off: u64, firmware: [u16; 3], now_ns: u64, khz: u32) -> Option<u32> {
        let at = |f: Field<InitSeg>| (f.dword() * 4) as u64 == off;
        let timer = || (u128::from(now_ns) * u128::from(khz) / 1_000_000) as u64;
        Some(match off {
            _ if at(InitSeg::fw_rev_major) => {
                let d = InitSeg::fw_rev_major.in_dword(0, u32::from(firmware[0]));
                InitSeg::fw_rev_minor.in_dword(d, u32::from(firmware[1]))
            }
            _ if at(InitSeg::cmd_interface_rev) => {
                let d = InitSeg::cmd_interface_rev.in_dword(0, CMD_INTERFACE_REV);
                InitSeg::fw_rev_subminor.in_dword(d, u32::from(firmware[2]))
            }
            _ if at(InitSeg::cmdq_phy_addr_63_32) => self.addr_h,
            _ if at(InitSeg::cmdq_phy_addr_31_12) => {
                let d = InitSeg::log_cmdq_size.in_dword(self.addr_l, LOG_CMDQ_SIZE);
                InitSeg::log_cmdq_stride.in_dword(d, LOG_CMDQ_STRIDE)
            }
            _ if at(InitSeg::command_doorbell_vector) => 0,
            _ if at(InitSeg::initializing) => InitSeg::fw_reset_supported.in_dword(0, 1),
            _ if at(InitSeg::health_fw_ver) => {
                (u32::from(firmware[0]) << 24) | (u32::from(firmware[1]) << 16) | u32::from(firmware[2])
            }
            0x200..0x240 => 0,
            _ if at(InitSeg::cmd_exec_to) || at(InitSeg::cmd_q_init_to) => 0,
            _ if at(InitSeg::internal_timer_h) => (timer() >> 32) as u32,
            _ if at(InitSeg::internal_timer_l) => timer() as u32,
            // Ticks every 10 ms: the driver looks every two seconds.
            _ if at(InitSeg::health_counter) => ((now_ns / 10_000_000) as u32).max(1),
            _ => return None,
        })
    }

    /// The dword at byte `off` of a function that is not there yet: a driver waits for it.
    pub fn absent(off: u64, firmware: [u16; 3], now_ns: u64, khz: u32) -> u32 {
        let dword = Self::default().read(off, firmware, now_ns, khz).unwrap_or(0);
        match (InitSeg::initializing.dword() * 4) as u64 == off {
            true => InitSeg::initializing.in_dword(dword, 1),
            false => dword,
        }
    }

    /// Writes a dword at byte `off` (a multiple of 4).
    pub fn write(&mut self, off: u64, value: u32) -> IsegWrite {
        let at = |f: Field<InitSeg>| (f.dword() * 4) as u64 == off;
        if at(InitSeg::cmdq_phy_addr_63_32) {
            self.addr_h = value;
            IsegWrite::Done
        } else if at(InitSeg::cmdq_phy_addr_31_12) {
            self.addr_l = value;
            match InitSeg::nic_interface.of_dword(value) {
                0 => IsegWrite::Done,
                SW_RESET => IsegWrite::FirmwareReset,
                _ => IsegWrite::Disable,
            }
        } else if at(InitSeg::command_doorbell_vector) {
            IsegWrite::Doorbell(value)
        } else {
            IsegWrite::Unmodelled
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_size_survives_the_address() {
        let mut i = Iseg::default();
        assert_eq!(i.write(0x14, 0xabcd_e000), IsegWrite::Done);
        assert_eq!(i.write(0x10, 1), IsegWrite::Done);
        assert_eq!(i.cmdq_addr(), Some(0x1_abcd_e000));
        let d = i.read(0x14, [22, 41, 1000], 0, 0).unwrap();
        assert_eq!((d >> 4 & 0xf, d & 0xf), (LOG_CMDQ_SIZE, LOG_CMDQ_STRIDE));
        assert_eq!(i.read(0x0, [22, 41, 1000], 0, 0), Some(41 << 16 | 22));
        assert_eq!(i.read(0x4, [22, 41, 1000], 0, 0), Some(5 << 16 | 1000));
        assert_eq!(i.read(0x900, [22, 41, 1000], 0, 0), None);
    }

    #[test]
    fn the_timer_runs_at_its_rate() {
        let i = Iseg::default();
        assert_eq!(i.read(0x1004, [0; 3], 1_000_000, 156_250), Some(156_250));
        assert_ne!(i.read(0x1010, [0; 3], 0, 0), i.read(0x1010, [0; 3], 2_000_000_000, 0));
    }
}
