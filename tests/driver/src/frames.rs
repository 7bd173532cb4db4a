//! Frames, put together byte by byte; nothing of the model's own packet code
//! is used, so that both sides do not share a mistake.

/// IPv4.
pub const IPV4: u16 = 0x0800;
/// C-VLAN tag.
pub const VLAN: u16 = 0x8100;

/// A frame of any type.
pub fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut f = [to, from].concat();
    f.extend(ethertype.to_be_bytes());
    f.extend(payload);
    f
}

/// Addresses and ports of a flow over IPv4.
#[derive(Debug, Clone, Copy)]
pub struct Flow4 {
    /// Destination and source MAC address.
    pub mac: [[u8; 6]; 2],
    /// Source and destination address.
    pub ip: [[u8; 4]; 2],
    /// Source and destination port.
    pub port: [u16; 2],
}

impl Flow4 {
    /// From host 10.0.0.1 port 1000 to 10.0.0.2 port 2000.
    pub fn new(to: [u8; 6], from: [u8; 6]) -> Self {
        Self { mac: [to, from], ip: [[10, 0, 0, 1], [10, 0, 0, 2]], port: [1000, 2000] }
    }

    /// A UDP datagram, checksums right.
    pub fn udp(&self, payload: &[u8]) -> Vec<u8> {
        let mut l4 = self.ports();
        l4.extend((8 + payload.len() as u16).to_be_bytes());
        l4.extend([0, 0]);
        l4.extend(payload);
        let sum = self.l4_checksum(17, &l4);
        l4[6..8].copy_from_slice(&sum.to_be_bytes());
        self.ip(17, &l4)
    }

    /// A TCP segment with ACK and PSH set, checksums right.
    pub fn tcp(&self, seq: u32, payload: &[u8]) -> Vec<u8> {
        let mut l4 = self.ports();
        l4.extend(seq.to_be_bytes());
        l4.extend([0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        l4.extend(payload);
        let sum = self.l4_checksum(6, &l4);
        l4[16..18].copy_from_slice(&sum.to_be_bytes());
        self.ip(6, &l4)
    }

    fn ports(&self) -> Vec<u8> {
        self.port.iter().flat_map(|p| p.to_be_bytes()).collect()
    }

    fn l4_checksum(&self, protocol: u8, l4: &[u8]) -> u16 {
        let mut all = self.ip.concat();
        all.extend([0, protocol]);
        all.extend((l4.len() as u16).to_be_bytes());
        all.extend(l4);
        !sum(&all)
    }

    fn ip(&self, protocol: u8, l4: &[u8]) -> Vec<u8> {
        let mut ip = vec![0x45, 0];
        ip.extend((20 + l4.len() as u16).to_be_bytes());
        ip.extend([0, 7, 0x40, 0, 64, protocol, 0, 0]);
        ip.extend(self.ip.concat());
        let c = !sum(&ip);
        ip[10..12].copy_from_slice(&c.to_be_bytes());
        ip.extend(l4);
        ethernet(self.mac[0], self.mac[1], IPV4, &ip)
    }
}

/// The frame with a C-VLAN tag.
pub fn tagged(frame: &[u8], tci: u16) -> Vec<u8> {
    let mut f = frame[..12].to_vec();
    f.extend(VLAN.to_be_bytes());
    f.extend(tci.to_be_bytes());
    f.extend(&frame[12..]);
    f
}

/// Ones-complement sum of big-endian words; an odd byte is padded.
pub fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], *c.get(1).unwrap_or(&0)])));
    let mut s = words.fold(0u64, |s, w| s + u64::from(w));
    while s > 0xffff {
        s = (s >> 16) + (s & 0xffff);
    }
    s as u16
}

/// Whether both checksums of an untagged TCP or UDP frame over IPv4 are right.
pub fn checksums_hold(frame: &[u8]) -> bool {
    let (ip, l4) = (&frame[14..34], &frame[34..]);
    let len = usize::from(u16::from_be_bytes([ip[2], ip[3]])) - 20;
    let mut all = ip[12..20].to_vec();
    all.extend([0, ip[9]]);
    all.extend((len as u16).to_be_bytes());
    all.extend(&l4[..len]);
    sum(ip) == 0xffff && sum(&all) == 0xffff
}

/// Bytes that differ from one another and from frame to frame.
pub fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ seed.wrapping_mul(0x9d)) as u8).collect()
}

/// Toeplitz hash of `input` under `key`, bit by bit as the definition says.
pub fn toeplitz(key: &[u8; 40], input: &[u8]) -> u32 {
    let bit = |b: &[u8], i: usize| b[i / 8] >> (7 - i % 8) & 1;
    let mut hash = 0u32;
    for i in (0..input.len() * 8).filter(|i| bit(input, *i) == 1) {
        for j in 0..32 {
            hash ^= u32::from(bit(key, i + j)) << (31 - j);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_right_checksums() {
        let f = Flow4::new([2; 6], [4; 6]);
        assert!(checksums_hold(&f.udp(b"odd")) && checksums_hold(&f.tcp(5, b"even")));
        let mut wrong = f.udp(b"odd");
        wrong[43] ^= 1;
        assert!(!checksums_hold(&wrong));
    }
}
