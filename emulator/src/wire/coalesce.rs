//! Consecutive TCP segments on their way out, joined into one large frame: a kernel takes
//! 64 KiB in the time of a few small frames.
//!
//! Only segments whose joining the receiver can undo exactly are joined, which are those
//! that large send offload makes: same headers, consecutive sequence numbers and IPv4
//! identifications, same length but for the last, correct checksums.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sfnic_device_model::packet::{Fragment, Frame, L3, L4, Piece, Tunnel, checksum};

use super::Outlet;
use super::offload::{Large, Offload};

/// Longest joined frame: the longest IP packet behind an Ethernet header with two tags.
const CAPACITY: usize = 65_535 + 14 + 8;
/// Longest headers that are compared.
const HEADERS: usize = 256;

const ACK: u16 = 0x10;
const PSH: u16 = 0x08;
// Offsets in the headers of IPv4, IPv6 and TCP, in bytes.
const IP4_LENGTH: usize = 2;
const IP4_ID: usize = 4;
const IP4_CHECKSUM: usize = 10;
const IP6_LENGTH: usize = 4;
const IP6_HEADER: usize = 40;
const TCP_SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;

/// The way out of a port and the frames lost there.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) outlet: Arc<dyn Outlet>,
    pub(super) lost: AtomicU64,
}

/// What a frame has that can be joined.
#[derive(Debug, Clone, Copy)]
struct Segment {
    ipv6: bool,
    l3: usize,
    l4: usize,
    header: usize,
    payload: usize,
    sequence: u32,
    id: u16,
    push: bool,
}

/// Frames of one thread that are not written yet; none or several joined.
#[derive(Debug)]
pub(super) struct Batch {
    target: Option<Arc<Target>>,
    buf: Vec<u8>,
    len: usize,
    frames: u16,
    /// The first of them.
    first: Option<Segment>,
    sequence: u32,
    /// Nothing more fits behind the last.
    closed: bool,
}

impl Batch {
    pub(super) const fn new() -> Self {
        Self { target: None, buf: Vec::new(), len: 0, frames: 0, first: None, sequence: 0, closed: false }
    }

    /// Takes a frame; it may be written only by [`Self::flush`].
    pub(super) fn push(&mut self, target: &Arc<Target>, frame: &Frame<'_>) {
        if frame.len() > CAPACITY {
            self.flush();
            target.lost.fetch_add(1, Relaxed);
            return;
        }
        let segment = Segment::of(frame).filter(|s| target.outlet.joins(s.ipv6));
        if let Some(s) = segment.filter(|s| self.continues(target, frame, s)) {
            self.append(frame, s.header);
            self.frames += 1;
            self.follow(&s);
            return;
        }
        self.flush();
        if segment.is_none()
            && let Some(taken) = target.outlet.send_frame(frame)
        {
            target.lost.fetch_add((!taken).into(), Relaxed);
            return;
        }
        if self.buf.is_empty() {
            self.buf.resize(CAPACITY, 0);
        }
        self.target = Some(target.clone());
        self.append(frame, 0);
        self.frames = 1;
        match segment {
            Some(s) => {
                self.first = Some(s);
                self.follow(&s);
            }
            None => self.flush(),
        }
    }

    /// Takes a message that [`Target::takes_message`] wants, which is written at once.
    pub(super) fn push_message(&mut self, target: &Arc<Target>, message: &Frame<'_>, mss: usize) {
        self.flush();
        let first = Segment::of_message(message, mss);
        if self.buf.is_empty() {
            self.buf.resize(CAPACITY, 0);
        }
        self.append(message, 0);
        self.frames = (message.len() - first.header).div_ceil(mss.max(1)) as u16;
        (self.target, self.first) = (Some(target.clone()), Some(first));
        self.flush();
    }

    fn follow(&mut self, s: &Segment) {
        self.sequence = s.sequence.wrapping_add(s.payload as u32);
        self.closed = s.push || self.first.is_some_and(|first| s.payload < first.payload);
        if s.push
            && let Some(flags) = self.buf.get_mut(s.l4 + TCP_FLAGS)
        {
            *flags |= PSH as u8;
        }
    }

    fn continues(&self, target: &Arc<Target>, frame: &Frame<'_>, s: &Segment) -> bool {
        let (Some(first), Some(pending)) = (&self.first, &self.target) else { return false };
        !self.closed
            && Arc::ptr_eq(pending, target)
            && s.ipv6 == first.ipv6
            && (s.l3, s.l4, s.header) == (first.l3, first.l4, first.header)
            && s.sequence == self.sequence
            && s.payload <= first.payload
            && self.len + s.payload - s.l3 - if s.ipv6 { IP6_HEADER } else { 0 } <= 0xffff
            && self.len + s.payload <= CAPACITY
            && (s.ipv6 || s.id == first.id.wrapping_add(self.frames))
            && self.same_headers(frame, s)
    }

    /// Whether the headers differ only where those of segments do.
    fn same_headers(&self, frame: &Frame<'_>, s: &Segment) -> bool {
        let mut theirs = [0; HEADERS];
        let theirs = &mut theirs[..s.header];
        let ours = &self.buf[..s.header];
        theirs.copy_from_slice(&frame.headers()[..s.header]);
        let mut ignore = |at: usize, n: usize| theirs[at..at + n].copy_from_slice(&ours[at..at + n]);
        if s.ipv6 {
            ignore(s.l3 + IP6_LENGTH, 2);
        } else {
            ignore(s.l3 + IP4_LENGTH, 2);
            ignore(s.l3 + IP4_ID, 2);
            ignore(s.l3 + IP4_CHECKSUM, 2);
        }
        ignore(s.l4 + TCP_SEQUENCE, 4);
        ignore(s.l4 + TCP_FLAGS, 1); // no more than ACK and PSH, as `Segment::of` knows
        ignore(s.l4 + TCP_CHECKSUM, 2);
        theirs == ours
    }

    /// Copies what is behind a frame's first `skip` bytes, which are in its header buffer.
    fn append(&mut self, frame: &Frame<'_>, skip: usize) {
        for piece in frame.pieces() {
            let room = &mut self.buf[self.len..];
            self.len += match piece {
                Piece::Own(b) => {
                    let b = &b[skip..];
                    room[..b.len()].copy_from_slice(b);
                    b.len()
                }
                Piece::Guest(s) => s.copy_to(room),
            };
        }
    }

    /// Writes what there is.
    pub(super) fn flush(&mut self) {
        let Some(target) = self.target.take() else { return };
        let offload = match self.first.take().filter(|_| self.frames > 1) {
            Some(first) => self.finish(&first),
            None => Offload::default(),
        };
        if !target.outlet.send(offload, &self.buf[..self.len]) {
            target.lost.fetch_add(self.frames.into(), Relaxed);
        }
        self.len = 0;
        self.frames = 0;
        self.closed = false;
    }

    /// Makes one packet of the joined segments: its lengths, and checksums as the kernel
    /// wants them before it cuts.
    fn finish(&mut self, first: &Segment) -> Offload {
        let (l3, l4) = (first.l3, first.l4);
        let b = &mut self.buf[..self.len];
        let tcp = b.len() - l4;
        let mut put = |at: usize, v: u16| b[at..at + 2].copy_from_slice(&v.to_be_bytes());
        let addresses = if first.ipv6 {
            put(l3 + IP6_LENGTH, (tcp + l4 - l3 - IP6_HEADER) as u16);
            l3 + 8..l3 + 40
        } else {
            put(l3 + IP4_LENGTH, (tcp + l4 - l3) as u16);
            put(l3 + IP4_CHECKSUM, 0);
            let sum = !checksum::sum(&b[l3..l4]);
            b[l3 + IP4_CHECKSUM..l3 + IP4_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
            l3 + 12..l3 + 20
        };
        const TCP: u16 = 6;
        let length = checksum::add((tcp >> 16) as u16, tcp as u16);
        let pseudo = checksum::add(checksum::sum(&b[addresses]), checksum::add(TCP, length));
        b[l4 + TCP_CHECKSUM..l4 + TCP_CHECKSUM + 2].copy_from_slice(&pseudo.to_be_bytes());
        Offload {
            checksum: Some((l4 as u16, TCP_CHECKSUM as u16)),
            large: Some(Large { ipv6: first.ipv6, header: first.header as u16, segment: first.payload as u16 }),
        }
    }
}

impl Target {
    /// Whether a message can go as one frame: an IP packet that the far end cuts.
    pub(super) fn takes_message(&self, message: &Frame<'_>) -> bool {
        let l = &message.layers;
        let ipv6 = l.l3 == L3::Ipv6;
        let packet = message.len() - usize::from(l.l3_off) - if ipv6 { IP6_HEADER } else { 0 };
        let header = l.l4_end();
        packet <= 0xffff
            && message.len() <= CAPACITY
            && header <= message.headers().len().min(HEADERS)
            && message.inner.is_none()
            && message.tunnel == Tunnel::None
            && self.outlet.joins(ipv6)
    }
}

impl Segment {
    /// The first of a message's, of whose headers nothing was checked yet.
    fn of_message(message: &Frame<'_>, mss: usize) -> Self {
        let l = &message.layers;
        Self {
            ipv6: l.l3 == L3::Ipv6,
            l3: l.l3_off.into(),
            l4: l.l4_off.into(),
            header: l.l4_end(),
            payload: mss,
            sequence: 0,
            id: 0,
            push: false,
        }
    }

    /// None where the frame is not to be joined.
    fn of(frame: &Frame<'_>) -> Option<Self> {
        let l = &frame.layers;
        let plain = l.l4 == L4::Tcp
            && l.fragment == Fragment::Whole
            && l.tcp_flags & !PSH == ACK
            && frame.inner.is_none()
            && frame.tunnel == Tunnel::None;
        let (l3, l4, header, end) = (usize::from(l.l3_off), usize::from(l.l4_off), l.l4_end(), l.l3_end as usize);
        let h = frame.headers();
        // Bytes behind the packet would become payload.
        if !plain || end != frame.len() || header >= end || header > h.len().min(HEADERS) {
            return None;
        }
        // The kernel makes new checksums; wrong ones have to stay wrong.
        let check = checksum::verify(frame);
        if !check.l3_ok() || !check.l4_ok() {
            return None;
        }
        let get16 = |at: usize| h.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        let ipv6 = l.l3 == L3::Ipv6;
        let (high, low) = (get16(l4 + TCP_SEQUENCE)?, get16(l4 + TCP_SEQUENCE + 2)?);
        Some(Self {
            ipv6,
            l3,
            l4,
            header,
            payload: end - header,
            sequence: u32::from(high) << 16 | u32::from(low),
            id: if ipv6 { 0 } else { get16(l3 + IP4_ID)? },
            push: l.tcp_flags & PSH != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use sfnic_device_model::packet::lso;

    use super::*;

    /// Keeps what it gets.
    #[derive(Debug, Default)]
    struct Kept(Mutex<Vec<(Offload, Vec<u8>)>>);

    impl Outlet for Kept {
        fn send(&self, offload: Offload, frame: &[u8]) -> bool {
            self.0.lock().push((offload, frame.to_vec()));
            true
        }

        fn joins(&self, _: bool) -> bool {
            true
        }
    }

    const MSS: usize = 100;

    /// A TCP packet with this payload, its checksums not filled.
    fn packet(ipv6: bool, flags: u8, payload: usize) -> Vec<u8> {
        let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        let tcp = 20 + payload as u16;
        if ipv6 {
            f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            f.extend(tcp.to_be_bytes());
            f.extend([6, 64]);
            f.extend((0..32).map(|i| i * 7));
        } else {
            f.extend([8, 0, 0x45, 0]);
            f.extend((20 + tcp).to_be_bytes());
            f.extend([0xff, 0xfe, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2]);
        }
        // Sequence numbers wrap.
        f.extend([0x14, 0x51, 0, 80, 0xff, 0xff, 0xff, 0x80, 0, 0, 0, 9, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        f.extend((0..payload).map(|i| (i * 31) as u8));
        f
    }

    fn bytes(f: &Frame<'_>) -> Vec<u8> {
        let mut out = vec![0; f.len()];
        f.write_into(&mut out);
        out
    }

    fn segments(packet: &mut [u8]) -> Vec<Vec<u8>> {
        let mut f = Frame::from_bytes(packet).unwrap();
        f.parse();
        let header = f.layers.l4_end();
        let mut all = vec![];
        lso::segment(&f, MSS, header, |s| all.push(bytes(s))).unwrap();
        all
    }

    /// What is written when these frames are sent in one burst.
    fn written(frames: &[Vec<u8>]) -> Vec<(Offload, Vec<u8>)> {
        let kept = Arc::new(Kept::default());
        let target = Arc::new(Target { outlet: kept.clone(), lost: AtomicU64::new(0) });
        let mut batch = Batch::new();
        for bytes in frames {
            let mut bytes = bytes.clone();
            let mut f = Frame::from_bytes(&mut bytes).unwrap();
            f.parse();
            batch.push(&target, &f);
        }
        batch.flush();
        assert_eq!(target.lost.load(Relaxed), 0);
        std::mem::take(&mut *kept.0.lock())
    }

    #[test]
    fn cutting_undoes_joining() {
        for ipv6 in [false, true] {
            let cut = segments(&mut packet(ipv6, 0x18, 1250));
            assert_eq!(cut.len(), 13);
            let joined = written(&cut);
            assert_eq!(joined.len(), 1, "ipv6 {ipv6}");
            let (offload, mut frame) = joined.into_iter().next().unwrap();
            let header = if ipv6 { 74 } else { 54 };
            assert_eq!(offload.large, Some(Large { ipv6, header, segment: 100 }));
            assert_eq!(offload.checksum, Some((header - 20, 16)));
            assert_eq!(segments(&mut frame), cut);
        }
    }

    #[test]
    fn a_message_is_what_its_segments_are_joined() {
        for (ipv6, flags) in [(false, 0x18), (true, 0x18), (false, 0x10)] {
            let joined = written(&segments(&mut packet(ipv6, flags, 1250)));
            // A sender leaves lengths and checksums to who cuts.
            let mut message = packet(ipv6, flags, 1250);
            let lengths = if ipv6 { 18..20 } else { 16..18 };
            let mut f = Frame::from_bytes(&mut message).unwrap();
            f.parse();
            f.headers_mut()[lengths].fill(0xff);
            let kept = Arc::new(Kept::default());
            let target = Arc::new(Target { outlet: kept.clone(), lost: AtomicU64::new(0) });
            assert!(target.takes_message(&f));
            let mut batch = Batch::new();
            // What was not written yet goes first.
            let mut other = packet(ipv6, 0x10, 100);
            let mut before = Frame::from_bytes(&mut other).unwrap();
            before.parse();
            checksum::fill(&mut before, checksum::Fill { l3: true, l4: true, ..Default::default() });
            batch.push(&target, &before);
            batch.push_message(&target, &f, MSS);
            let got = std::mem::take(&mut *kept.0.lock());
            assert_eq!((got[0].0, &got[0].1), (Offload::default(), &bytes(&before)));
            assert_eq!(got[1..], joined);
        }
        // Longer than an IP packet can be.
        let mut long = packet(false, 0x10, 65_535 - 39);
        let mut f = Frame::from_bytes(&mut long).unwrap();
        f.parse();
        let target = Target { outlet: Arc::new(Kept::default()), lost: AtomicU64::new(0) };
        assert!(!target.takes_message(&f));
    }

    #[test]
    fn what_does_not_continue_is_sent_as_it_is() {
        let cut = segments(&mut packet(false, 0x10, 350));
        let alone = |frames: &[Vec<u8>]| {
            let plain: Vec<_> = frames.iter().map(|f| (Offload::default(), f.clone())).collect();
            assert_eq!(written(frames), plain);
        };
        // One by itself, out of order, twice the same, behind a short one.
        alone(&cut[..1]);
        alone(&[cut[2].clone(), cut[1].clone()]);
        alone(&[cut[0].clone(), cut[0].clone()]);
        alone(&[cut[3].clone(), cut[0].clone()]);
        // A wrong checksum stays wrong.
        let mut wrong = cut.clone();
        wrong[1][60] ^= 1;
        alone(&wrong[..2]);
        // Other headers: the window, the TTL.
        for at in [14 + 8, 14 + 20 + 15] {
            let mut other = cut.clone();
            other[1][at] ^= 1;
            alone(&other[..2]);
        }
        // Flags that are not of data, no payload, no TCP.
        alone(&segments(&mut packet(false, 0x11, 150)).split_off(1));
        alone(&[packet(false, 0x10, 0), packet(false, 0x10, 0)]);
        alone(&[vec![0xff; 60], vec![0xff; 60]]);
    }

    #[test]
    fn joined_frames_are_packets_of_at_most_64_kib() {
        for ipv6 in [false, true] {
            let mut cut = vec![];
            for (n, mut part) in [60_000, 60_000].into_iter().map(|n| (n, packet(ipv6, 0x10, n))) {
                let at = if ipv6 { 54 } else { 34 } + TCP_SEQUENCE;
                if !cut.is_empty() {
                    part[at..at + 4].copy_from_slice(&(n as u32 - 0x80).to_be_bytes());
                    let id = 0xfffeu16.wrapping_add(600);
                    if !ipv6 {
                        part[18..20].copy_from_slice(&id.to_be_bytes());
                    }
                }
                cut.extend(segments(&mut part));
            }
            let joined = written(&cut);
            assert_eq!(joined.len(), 2);
            assert!(joined[0].1.len() > 65_300, "{}", joined[0].1.len());
            let again: Vec<_> = joined.into_iter().flat_map(|(_, mut f)| segments(&mut f)).collect();
            assert!(again == cut);
        }
    }
}
