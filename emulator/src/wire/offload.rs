//! What the kernel and a wire say of a frame beside its bytes.
//!
//! `struct virtio_net_hdr` of the kernel's `include/uapi/linux/virtio_net.h`, in the form
//! of 10 bytes in the host's byte order that a TAP interface has by default. A virtio
//! device of version 1 has two bytes more, the number of buffers, and little-endian fields.

/// Bytes of the header before each frame.
pub const HEADER: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// What is left to be done to a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offload {
    /// The checksum to be completed: where its data start, and where it is from there.
    /// It holds the sum of the pseudo header.
    pub checksum: Option<(u16, u16)>,
    /// The frame stands for several.
    pub large: Option<Large>,
}

/// TCP segments in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Large {
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
    /// Length of the headers in bytes. Of frames from the kernel it is a hint.
    pub header: u16,
    /// Payload bytes of each segment; the last may have fewer.
    pub segment: u16,
}

impl Offload {
    /// As the kernel writes and reads it.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut b = [0; HEADER];
        if let Some(large) = self.large {
            b[1] = if large.ipv6 { GSO_TCPV6 } else { GSO_TCPV4 };
            b[2..4].copy_from_slice(&large.header.to_ne_bytes());
            b[4..6].copy_from_slice(&large.segment.to_ne_bytes());
        }
        if let Some((start, offset)) = self.checksum {
            b[0] = NEEDS_CSUM;
            b[6..8].copy_from_slice(&start.to_ne_bytes());
            b[8..10].copy_from_slice(&offset.to_ne_bytes());
        }
        b
    }

    /// The reverse. Of large frames only TCP, as nothing else was asked for.
    pub fn from_bytes(b: [u8; HEADER]) -> Self {
        let field = |at: usize| u16::from_ne_bytes([b[at], b[at + 1]]);
        let large = |ipv6| Some(Large { ipv6, header: field(2), segment: field(4) });
        Self {
            checksum: (b[0] & NEEDS_CSUM != 0).then(|| (field(6), field(8))),
            large: match b[1] & !GSO_ECN {
                GSO_TCPV4 => large(false),
                GSO_TCPV6 => large(true),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_written() {
        for ipv6 in [false, true] {
            let large = Some(Large { ipv6, header: 66, segment: 1448 });
            for o in
                [Offload { checksum: Some((34, 16)), large }, Offload::default(), Offload { checksum: None, large }]
            {
                assert_eq!(Offload::from_bytes(o.to_bytes()), o);
            }
        }
        assert_eq!(Offload::default().to_bytes(), [0; HEADER]);
    }
}
