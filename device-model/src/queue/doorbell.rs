//! What a write to a UAR page means.

use sfnic_firmware_cmds::View;
use sfnic_firmware_cmds::entries::{CqDoorbell, EqDoorbell, SqDoorbell};

use super::cq::Arm;

/// CQ doorbell, 8 bytes (`MLX5_CQ_DOORBELL`).
const CQ: u16 = 0x20;
/// EQ doorbell that arms (`MLX5_EQ_DOORBELL_OFFSET`), 4 bytes.
const EQ_ARM: u16 = 0x40;
/// EQ doorbell that only moves the consumer, 4 bytes.
const EQ_UPDATE: u16 = 0x48;
/// First BlueField register (`MLX5_BF_OFFSET`); the page is full of them.
const BF: u16 = 0x800;
/// Where the page ends.
const END: u16 = 0x1000;
/// A BlueField register is two halves of this size, used in turn.
const BF_HALF: u16 = 0x100;

/// Where completion queues are armed.
pub const CQ_DOORBELL: u16 = CQ;

/// Where send queues are rung in a UAR page: each half of each BlueField register.
pub fn sq_doorbells() -> impl Iterator<Item = u16> {
    (BF..END).step_by(BF_HALF.into())
}

/// A doorbell. The numbers are the guest's: the queue may not exist, and may
/// not be one that this UAR page may ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doorbell {
    /// A send queue has new WQEs. The send counter is in the queue's record,
    /// which the driver writes first.
    Sq {
        /// Queue number.
        sqn: u32,
        /// Index of the WQE that was rung, where the write carried it.
        wqe_index: Option<u16>,
    },
    /// Arm a completion queue.
    CqArm {
        /// Queue number.
        cqn: u32,
        /// What to wait for; `None` where the write carried only the number,
        /// see [`super::Cq::arm_from_record`].
        arm: Option<Arm>,
    },
    /// Arm an event queue and move its consumer.
    EqArm {
        /// Queue number.
        eqn: u8,
        /// Consumer counter, 24 bits.
        ci: u32,
    },
    /// Move an event queue's consumer.
    EqUpdate {
        /// Queue number.
        eqn: u8,
        /// Consumer counter, 24 bits.
        ci: u32,
    },
}

impl Doorbell {
    /// Decodes a write of `data` at `offset` of a UAR page.
    ///
    /// A 64-bit driver writes 8 bytes at once (`mlx5_write64`), or a whole WQE
    /// to a BlueField register, of which the head counts. A 32-bit driver
    /// writes two halves: the first says nothing yet and the second, which
    /// has the queue's number, rings; the other half's content is in the
    /// doorbell record, so nothing need be kept between the two.
    pub fn decode(offset: u16, data: &[u8]) -> Option<Self> {
        match (offset, data.len()) {
            (EQ_ARM | EQ_UPDATE, 4) => {
                let v = View::<EqDoorbell>::new(data);
                let (eqn, ci) = (v.get(EqDoorbell::eqn) as u8, v.get(EqDoorbell::ci));
                Some(if offset == EQ_ARM { Self::EqArm { eqn, ci } } else { Self::EqUpdate { eqn, ci } })
            }
            (CQ, 8) => {
                let v = View::<CqDoorbell>::new(data);
                let arm = Arm {
                    sn: v.get(CqDoorbell::cmd_sn) as u8,
                    ci: v.get(CqDoorbell::ci),
                    solicited_only: v.is(CqDoorbell::solicited_only),
                };
                Some(Self::CqArm { cqn: v.get(CqDoorbell::cqn), arm: Some(arm) })
            }
            (o, 4) if o == CQ + 4 => {
                Some(Self::CqArm { cqn: second_half(data, |v| CqDoorbell::cqn.of_dword(v)), arm: None })
            }
            (BF..END, 4) if offset % BF_HALF == 4 => {
                Some(Self::Sq { sqn: second_half(data, |v| SqDoorbell::sqn.of_dword(v)), wqe_index: None })
            }
            (BF..END, 8..) if offset.is_multiple_of(BF_HALF) => {
                let v = View::<SqDoorbell>::new(data);
                Some(Self::Sq { sqn: v.get(SqDoorbell::sqn), wqe_index: Some(v.get(SqDoorbell::wqe_index) as u16) })
            }
            _ => None,
        }
    }
}

fn second_half(data: &[u8], field: impl Fn(u32) -> u32) -> u32 {
    data.first_chunk().map_or(0, |b| field(u32::from_be_bytes(*b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_doorbells_decode() {
        let sq = [0, 0x12, 0x34, 0x0a, 0, 0, 0x77, 0x04];
        let want = Some(Doorbell::Sq { sqn: 0x77, wqe_index: Some(0x1234) });
        for offset in [0x800, 0x900, 0xa00, 0xf00] {
            assert_eq!(Doorbell::decode(offset, &sq), want);
        }
        let mut wqe = [0; 64];
        wqe[..8].copy_from_slice(&sq);
        assert_eq!(Doorbell::decode(0xb00, &wqe), want);
        assert_eq!(Doorbell::decode(0x808, &sq), None, "the rest of a WQE pushed in pieces");
        assert_eq!(
            Doorbell::decode(0x20, &[0x21, 0, 0, 9, 0, 0, 1, 5]),
            Some(Doorbell::CqArm { cqn: 0x105, arm: Some(Arm { sn: 2, ci: 9, solicited_only: true }) })
        );
        assert_eq!(Doorbell::decode(0x40, &[3, 0, 1, 0]), Some(Doorbell::EqArm { eqn: 3, ci: 256 }));
        assert_eq!(Doorbell::decode(0x48, &[3, 0, 1, 0]), Some(Doorbell::EqUpdate { eqn: 3, ci: 256 }));
    }

    #[test]
    fn the_second_half_rings() {
        assert_eq!(Doorbell::decode(0x20, &[0; 4]), None);
        assert_eq!(Doorbell::decode(0x24, &[0, 0, 1, 5]), Some(Doorbell::CqArm { cqn: 0x105, arm: None }));
        assert_eq!(Doorbell::decode(0x800, &[0; 4]), None);
        assert_eq!(Doorbell::decode(0x804, &[0, 0, 0x77, 4]), Some(Doorbell::Sq { sqn: 0x77, wqe_index: None }));
    }

    #[test]
    fn nothing_else_rings() {
        for (offset, len) in [(0, 8), (0x40, 8), (0x41, 4), (0x24, 8), (0x900, 2), (0x901, 8), (0x1000, 8), (0xffff, 4)]
        {
            assert_eq!(Doorbell::decode(offset, &vec![0xff; len]), None, "{offset:#x} {len}");
        }
    }
}
