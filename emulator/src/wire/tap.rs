//! A TAP interface of the host as a wire.
//!
//! Facts are from the kernel's `Documentation/networking/tuntap.rst` and
//! `drivers/net/tun.c`. Frames are whole Ethernet frames without FCS and
//! with the kernel's header of offloads (`IFF_NO_PI`, `IFF_VNET_HDR`), one frame
//! a call. An interface has one queue, or several (`IFF_MULTI_QUEUE`), each with a
//! descriptor of its own; `steer` says which frame belongs to which.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use smallvec::SmallVec;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

use super::interface::{self, MAX_NAME, permission, raw_name};
use super::offload::{HEADER, Offload};
use super::steer;

/// Shortest frame the kernel takes: an Ethernet header, in bytes.
pub const MIN_FRAME: usize = 14;
/// Longest frame we send, in bytes: the largest MTU of a TAP interface plus an
/// Ethernet header with two VLAN tags. Jumbo frames (9216) fit well.
pub const MAX_FRAME: usize = 65_535 + 14 + 8;
/// Most pieces a frame may be sent in.
const MAX_PARTS: usize = 1024;

/// Why something with a wire failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The interface name is empty, too long, or has characters that names
    /// cannot have.
    #[error("{0:?} is no interface name (1 to {MAX_NAME} bytes, no slash, space, colon or percent sign)")]
    Name(String),
    /// `/dev/net/tun` is missing or cannot be opened.
    #[error("cannot open /dev/net/tun: {0}")]
    Device(io::Error),
    /// Creating or configuring interfaces needs `CAP_NET_ADMIN`, and attaching
    /// to an existing one needs its owner.
    #[error("no permission for TAP interface {name} ({step}): needs CAP_NET_ADMIN, or an interface of this user's")]
    Permission {
        /// Interface.
        name: String,
        /// What was being done.
        step: &'static str,
    },
    /// Another process has the interface.
    #[error("TAP interface {0} is in use by another process")]
    Busy(String),
    /// The name belongs to an interface of another kind.
    #[error("interface {0} exists and is not a TAP interface")]
    NotATap(String),
    /// Several queues were wanted.
    #[error(
        "TAP interface {0} was made with one queue: leave \"queues=\" out, or make it anew, with \"ip tuntap add {0} mode tap multi_queue\""
    )]
    OneQueue(String),
    /// One queue was wanted.
    #[error(
        "TAP interface {0} was made with multi_queue: say how many, such as \"tap:{0},queues=2\", or make it anew, without"
    )]
    SeveralQueues(String),
    /// Any other failure to set the interface up.
    #[error("TAP interface {name}: {step}: {source}")]
    Setup {
        /// Interface.
        name: String,
        /// What was being done.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The frame is shorter than [`MIN_FRAME`] or longer than [`MAX_FRAME`].
    #[error("frame of {0} bytes")]
    FrameSize(usize),
    /// A frame was longer than the buffer; what fits is in the buffer, the
    /// rest is lost.
    #[error("a received frame is longer than the buffer of {0} bytes")]
    Truncated(usize),
    /// The interface's queue is full; the frame was not sent.
    #[error("the wire is full")]
    Full,
    /// The interface is down or gone.
    #[error("the interface is down")]
    Down,
    /// Any other failure to send or receive.
    #[error("wire: {0}")]
    Io(io::Error),
}

pub(super) fn open_tun(name: &str) -> Result<File, WireError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => permission(name, "open /dev/net/tun"),
            _ => WireError::Device(source),
        })
}

/// An open TAP interface. Never blocks; wait for frames by polling its
/// descriptor.
///
/// An interface that did not exist is created, and vanishes when this is
/// dropped.
#[derive(Debug)]
pub struct TapWire {
    file: File,
    name: String,
}

impl TapWire {
    /// Creates the interface or attaches to it, and brings it up. `name` may
    /// have the prefix `tap:` of a configuration.
    ///
    /// # Errors
    /// [`WireError`] with what failed and for what reason.
    pub fn open(name: &str) -> Result<Self, WireError> {
        Self::open_with_mtu(name, None)
    }

    /// As [`Self::open`], and sets the interface's MTU in bytes if one is
    /// given (9000 for jumbo frames). It limits what the host sends to us; we
    /// may always send up to [`MAX_FRAME`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_mtu(name: &str, mtu: Option<u32>) -> Result<Self, WireError> {
        let name = name.strip_prefix("tap:").unwrap_or(name);
        let wire = Self::attach(name, false)?;
        interface::set_offloads(&wire.file, name)?;
        interface::bring_up(name, mtu)?;
        Ok(wire)
    }

    /// As [`Self::open`], with so many queues. Frames that come in are spread over them by
    /// their flows; for those that go out [`Self::choose`] tells the queue.
    ///
    /// # Errors
    /// As [`Self::open`]; [`WireError::Busy`] where another process has queues of it.
    pub fn open_queues(name: &str, queues: usize) -> Result<Vec<Self>, WireError> {
        if queues <= 1 {
            return Self::open(name).map(|wire| vec![wire]);
        }
        raw_name(name)?;
        let busy = |own| match interface::queues_in_use(name) > own {
            true => Err(WireError::Busy(name.to_owned())),
            false => Ok(()),
        };
        busy(0)?;
        let wires: Vec<Self> = (0..queues).map(|_| Self::attach(name, true)).collect::<Result<_, _>>()?;
        busy(queues as u32)?;
        interface::set_offloads(&wires[0].file, name)?;
        if let Err(e) = steer::steer(&wires[0].file) {
            tracing::warn!("TAP interface {name}: the kernel chooses queues by itself, a flow may change them: {e}");
        }
        interface::bring_up(name, None)?;
        Ok(wires)
    }

    fn attach(name: &str, several: bool) -> Result<Self, WireError> {
        raw_name(name)?;
        let file = open_tun(name)?;
        interface::attach(&file, name, several)?;
        Ok(Self { file, name: name.to_owned() })
    }

    /// The queue of those of an interface that a frame leaves by: one for all frames of a
    /// flow.
    pub fn choose<'a>(queues: &'a [Self], frame: &[u8]) -> Option<&'a Self> {
        match queues {
            [one] => Some(one),
            several => several.get(usize::from(steer::flow(frame)).checked_rem(several.len())?),
        }
    }

    /// The same queue, as somebody else has it who got the descriptor.
    #[cfg(test)]
    pub(super) fn share(&self) -> Self {
        Self { file: self.file.try_clone().expect("a descriptor is left"), name: self.name.clone() }
    }

    /// Takes the queue out of work, as somebody else with the descriptor may.
    #[cfg(test)]
    pub(super) fn detach(&self) -> Result<(), WireError> {
        let mut request = interface::Request::new(raw_name(&self.name)?);
        request.set_flags(libc::IFF_DETACH_QUEUE as i16);
        request.run(&self.file, libc::TUNSETQUEUE, &self.name, "detach")
    }

    /// Puts the queue to work again where somebody detached it; whether that was so.
    pub(super) fn attach_again(&self) -> bool {
        match interface::attach_again(&self.file, &self.name) {
            Ok(again) => again,
            Err(e) => {
                tracing::debug!("{e}");
                false
            }
        }
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends one frame whose bytes are those of `parts` in order, without
    /// copying them together.
    ///
    /// # Errors
    /// As [`Self::send_with`].
    pub fn send(&self, parts: &[IoSlice<'_>]) -> Result<(), WireError> {
        self.send_with(Offload::default(), parts)
    }

    /// As [`Self::send`], with something left to be done by the kernel.
    ///
    /// # Errors
    /// [`WireError::FrameSize`], [`WireError::Full`] and [`WireError::Down`]
    /// mean this frame is lost; [`WireError::Io`] otherwise.
    pub fn send_with(&self, offload: Offload, parts: &[IoSlice<'_>]) -> Result<(), WireError> {
        let length = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        if !(MIN_FRAME..=MAX_FRAME).contains(&length) || parts.len() > MAX_PARTS {
            return Err(WireError::FrameSize(length));
        }
        let header = offload.to_bytes();
        let all: SmallVec<[IoSlice<'_>; 8]> =
            std::iter::once(IoSlice::new(&header)).chain(parts.iter().copied()).collect();
        loop {
            match (&self.file).write_vectored(&all) {
                Ok(sent) if sent == HEADER + length => return Ok(()),
                Ok(_) => return Err(WireError::Io(io::ErrorKind::WriteZero.into())),
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::ENOBUFS) => return Err(WireError::Full),
                    Some(libc::EIO | libc::EBADFD | libc::ENETDOWN) => return Err(WireError::Down),
                    _ => return Err(WireError::Io(e)),
                },
            }
        }
    }

    /// Receives one frame into `buf` and returns its length in bytes and what
    /// is left to be done to it, or `None` if none is waiting.
    ///
    /// # Errors
    /// [`WireError::Truncated`] for a frame longer than `buf`, which the
    /// kernel would cut silently; [`WireError::Down`]; [`WireError::Io`].
    pub fn recv(&self, buf: &mut [u8]) -> Result<Option<(usize, Offload)>, WireError> {
        let room = buf.len();
        let mut spill = [0];
        let mut header = [0; HEADER];
        let length = received(|| {
            let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(buf), IoSliceMut::new(&mut spill)];
            (&self.file).read_vectored(&mut parts)
        })?;
        match length {
            Some(length) if length > HEADER + room => Err(WireError::Truncated(room)),
            Some(length) => Ok(Some((length.saturating_sub(HEADER), Offload::from_bytes(header)))),
            None => Ok(None),
        }
    }
}

impl TapWire {
    /// As [`Self::recv`], into memory that others may look at already: what is left to be
    /// done comes first, the frame is behind its [`HEADER`] bytes. Returns the frame's length.
    ///
    /// # Errors
    /// As [`Self::recv`]; [`WireError::Truncated`] also for a frame that fills all of `room`.
    pub(super) fn recv_into(&self, room: &mut VolatileSlice<'_>) -> Result<Option<(usize, Offload)>, WireError> {
        let length = received(|| {
            self.file.as_fd().read_volatile(room).map_err(|e| match e {
                VolatileMemoryError::IOError(e) => e,
                e => io::Error::other(e),
            })
        })?;
        match length {
            Some(length) if length >= room.len() => Err(WireError::Truncated(room.len())),
            Some(length) => {
                let mut header = [0; HEADER];
                room.copy_to(&mut header);
                Ok(Some((length.saturating_sub(HEADER), Offload::from_bytes(header))))
            }
            None => Ok(None),
        }
    }
}

impl AsRawFd for TapWire {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for TapWire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<TapWire> for OwnedFd {
    fn from(wire: TapWire) -> Self {
        wire.file.into()
    }
}

/// Reads until it is not interrupted: how many bytes, none where nothing waits.
fn received(mut read: impl FnMut() -> io::Result<usize>) -> Result<Option<usize>, WireError> {
    loop {
        let error = match read() {
            Ok(length) => return Ok(Some(length)),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN) => return Ok(None),
            Some(libc::EIO | libc::EBADFD | libc::ENETDOWN) => return Err(WireError::Down),
            _ => return Err(WireError::Io(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_the_kernel_sees_them() {
        for bad in ["", "sixteen-bytes-xx", "a/b", "tap%d", "a b", "..", "tap:", "tap:ä"] {
            let name = bad.strip_prefix("tap:").unwrap_or(bad);
            assert!(matches!(raw_name(name), Err(WireError::Name(_))), "{bad:?}");
        }
        assert_eq!(&raw_name("fifteen-bytes-x").expect("fits")[..], b"fifteen-bytes-x\0");
    }

    #[test]
    fn frames_cross_and_errors_are_named() {
        let name = format!("sfn{}", std::process::id() % 100_000);
        let wire = match TapWire::open_with_mtu(&name, Some(9216)) {
            Ok(wire) => wire,
            // Neither right nor device: nothing to test on this machine.
            Err(WireError::Permission { .. } | WireError::Device(_)) => return,
            Err(e) => panic!("{e}"),
        };
        assert!(matches!(TapWire::open(&name), Err(WireError::Busy(_))));
        assert!(matches!(TapWire::open("lo"), Err(WireError::NotATap(_))));
        // A frame of ours reaches the host whole ...
        let received = || {
            let path = format!("/sys/class/net/{name}/statistics/rx_bytes");
            std::fs::read_to_string(path).ok().and_then(|s| s.trim().parse::<u64>().ok())
        };
        let before = received().expect("statistics");
        let header = [0xffu8, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
        let body = vec![7; 9216];
        wire.send(&[IoSlice::new(&header), IoSlice::new(&body)]).expect("up");
        assert_eq!(received(), Some(before + 14 + 9216));
        // ... and the other way: a host with IPv6 asks for routers by itself.
        let ipv6 = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"));
        if ipv6.is_ok_and(|disabled| disabled.trim() == "0") {
            let mut short = [0; 20];
            let frame = (0..300).find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                wire.recv(&mut short).transpose()
            });
            assert!(matches!(frame, Some(Err(WireError::Truncated(20)))), "{frame:?}");
            assert_eq!(short[12..14], [0x86, 0xdd]);
        }
        assert!(matches!(wire.send(&[IoSlice::new(&header[..13])]), Err(WireError::FrameSize(13))));
        let long = vec![0; MAX_FRAME + 1];
        assert!(matches!(wire.send(&[IoSlice::new(&long)]), Err(WireError::FrameSize(_))));
    }
}
