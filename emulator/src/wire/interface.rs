//! Setting up network interfaces of the host, by the requests of `netdevice(7)`.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::WireError;
use super::tap::open_tun;

/// Longest interface name in bytes (`IFNAMSIZ` less its NUL).
pub(super) const MAX_NAME: usize = 15;

/// Creates a TAP interface that stays until its network namespace ends or it is deleted,
/// for another program to attach to, with one queue or with `several`.
///
/// # Errors
/// [`WireError`]; [`WireError::Busy`] if a program has an interface of that name.
pub fn create_persistent_tap(name: &str, several: bool) -> Result<(), WireError> {
    let file: File = open_tun(name)?;
    let mut request = Request::new(raw_name(name)?);
    let more = if several { libc::IFF_MULTI_QUEUE } else { 0 };
    request.set_flags((libc::IFF_TAP | libc::IFF_NO_PI | more) as i16);
    request.run(&file, libc::TUNSETIFF, name, "create")?;
    tun_set(&file, libc::TUNSETPERSIST, 1).map_err(|e| setup(name, "keep", e))
}

/// Attaches a TUN descriptor to a TAP interface, as its only queue or as one of several;
/// makes the interface where there is none.
pub(super) fn attach(file: &File, name: &str, several: bool) -> Result<(), WireError> {
    let flags = |several| {
        let more = if several { libc::IFF_MULTI_QUEUE } else { 0 };
        (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | more) as i16
    };
    let mut request = Request::new(raw_name(name)?);
    request.set_flags(flags(several));
    match request.run(file, libc::TUNSETIFF, name, "create") {
        Err(WireError::NotATap(_)) => {}
        other => return other,
    }
    // Another kind of interface, or a TAP interface made for another number of queues?
    request.set_flags(flags(!several));
    if queues_in_use(name) > 0 {
        return Err(WireError::Busy(name.to_owned()));
    }
    Err(match request.run(&open_tun(name)?, libc::TUNSETIFF, name, "attach") {
        Ok(()) if several => WireError::OneQueue(name.to_owned()),
        Ok(()) => WireError::SeveralQueues(name.to_owned()),
        Err(e) => e,
    })
}

/// Puts a queue to work again that was detached from its interface; whether it was.
pub(super) fn attach_again(file: &File, name: &str) -> Result<bool, WireError> {
    let mut request = Request::new(raw_name(name)?);
    request.run(file, libc::TUNGETIFF, name, "look at")?;
    if i32::from(request.flags()) & libc::IFF_DETACH_QUEUE == 0 {
        return Ok(false);
    }
    request.set_flags(libc::IFF_ATTACH_QUEUE as i16);
    request.run(file, libc::TUNSETQUEUE, name, "attach a queue to").map(|()| true)
}

/// How many queues programs have attached to an interface that may have several. 0 where
/// there is no such interface, or the kernel does not tell.
pub(super) fn queues_in_use(name: &str) -> u32 {
    const GET_DRIVER: u32 = 0x03;
    const GET_CHANNELS: u32 = 0x3c;
    let mut driver = [0u32; 49];
    driver[0] = GET_DRIVER;
    if !ethtool(name, &mut driver) || driver[1].to_ne_bytes() != *b"tun\0" {
        return 0;
    }
    // Command; most for receiving, sending, other, combined; as many are in use.
    let mut channels = [0u32; 9];
    channels[0] = GET_CHANNELS;
    if ethtool(name, &mut channels) && channels[4] > 1 { channels[8] } else { 0 }
}

/// An ethtool request, as long as its structure; false where it fails.
fn ethtool(name: &str, data: &mut [u32]) -> bool {
    let (Ok(socket), Ok(raw)) = (socket(name), raw_name(name)) else { return false };
    let mut request = Request::new(raw);
    request.set_pointer(data);
    request.run(&socket, libc::SIOCETHTOOL, name, "ask").is_ok()
}

/// One of the `ioctl`s of a TUN descriptor that take a number.
#[allow(unsafe_code)]
fn tun_set(file: &File, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the descriptor is open as `file` is borrowed; `TUNSETPERSIST` and
    // `TUNSETOFFLOAD` take the number itself.
    match unsafe { libc::ioctl(file.as_raw_fd(), request, value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has an attached TAP interface's frames come and go with an [`Offload`] of the
/// default form, and TCP segments joined.
///
/// [`Offload`]: super::offload::Offload
#[allow(unsafe_code)]
pub(super) fn set_offloads(file: &File, name: &str) -> Result<(), WireError> {
    let size = super::offload::HEADER as libc::c_int;
    // SAFETY: the descriptor is open as `file` is borrowed; the request reads an integer.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) } != 0 {
        return Err(setup(name, "set header size", io::Error::last_os_error()));
    }
    let wanted = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    if let Err(e) = tun_set(file, libc::TUNSETOFFLOAD, wanted.into()) {
        // Then frames come ready-made.
        tracing::debug!("TAP interface {name}: no offloads: {e}");
    }
    Ok(())
}

/// Gives an interface its IPv4 address, with the number of bits of its network's prefix,
/// and brings it up.
///
/// # Errors
/// [`WireError`] with what failed and for what reason.
pub fn set_address(name: &str, address: Ipv4Addr, prefix: u8) -> Result<(), WireError> {
    let socket = socket(name)?;
    let mask = u32::MAX.checked_shl(32u32.saturating_sub(prefix.into())).unwrap_or(0);
    for (request, step, value) in
        [(libc::SIOCSIFADDR, "set address", address), (libc::SIOCSIFNETMASK, "set netmask", mask.into())]
    {
        let mut r = Request::new(raw_name(name)?);
        r.set_address(value);
        r.run(&socket, request, name, step)?;
    }
    bring_up(name, None)
}

/// Sets how many frames may wait in each queue of an interface.
///
/// # Errors
/// [`WireError`] with what failed and for what reason.
pub fn set_queue_length(name: &str, frames: i32) -> Result<(), WireError> {
    let mut request = Request::new(raw_name(name)?);
    request.set_int(frames);
    request.run(&socket(name)?, libc::SIOCSIFTXQLEN, name, "set queue length")
}

/// Brings an interface up, and sets its MTU in bytes if one is given.
pub(super) fn bring_up(name: &str, mtu: Option<u32>) -> Result<(), WireError> {
    let raw_name = raw_name(name)?;
    let socket = socket(name)?;
    if let Some(mtu) = mtu {
        let mtu = i32::try_from(mtu).map_err(|_| setup(name, "set MTU", io::ErrorKind::InvalidInput.into()))?;
        let mut request = Request::new(raw_name);
        request.set_int(mtu);
        request.run(&socket, libc::SIOCSIFMTU, name, "set MTU")?;
    }
    let mut request = Request::new(raw_name);
    request.run(&socket, libc::SIOCGIFFLAGS, name, "get flags")?;
    let flags = request.flags();
    let up = libc::IFF_UP as i16;
    if flags & up == 0 {
        request.set_flags(flags | up);
        request.run(&socket, libc::SIOCSIFFLAGS, name, "bring up")?;
    }
    Ok(())
}

/// Whether an interface is up; none where there is no such interface.
pub(super) fn is_up(name: &str) -> Option<bool> {
    let socket = socket(name).ok()?;
    let mut request = Request::new(raw_name(name).ok()?);
    request.run(&socket, libc::SIOCGIFFLAGS, name, "get flags").ok()?;
    Some(request.flags() & libc::IFF_UP as i16 != 0)
}

/// A socket for requests about interfaces.
fn socket(name: &str) -> Result<OwnedFd, WireError> {
    rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| setup(name, "socket", e.into()))
}

/// Checks a name and pads it with NULs.
pub(super) fn raw_name(name: &str) -> Result<[u8; 16], WireError> {
    let bytes = name.as_bytes();
    // A percent sign would make the kernel pick a name.
    let allowed = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%');
    let usable = (1..=MAX_NAME).contains(&bytes.len()) && bytes.iter().all(allowed);
    if !usable || matches!(name, "." | "..") {
        return Err(WireError::Name(name.to_owned()));
    }
    let mut raw = [0; 16];
    raw[..bytes.len()].copy_from_slice(bytes);
    Ok(raw)
}

pub(super) fn permission(name: &str, step: &'static str) -> WireError {
    WireError::Permission { name: name.to_owned(), step }
}

fn setup(name: &str, step: &'static str, source: io::Error) -> WireError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => permission(name, step),
        Some(libc::EBUSY | libc::E2BIG) => WireError::Busy(name.to_owned()),
        _ => WireError::Setup { name: name.to_owned(), step, source },
    }
}

/// `struct ifreq`: a name and a union of 24 bytes, of which we use an
/// integer, the flags or an address.
#[repr(C, align(8))]
pub(super) struct Request {
    name: [u8; 16],
    value: [u8; 24],
}

// The kernel writes as much as its own structure has.
const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

impl Request {
    pub(super) fn new(name: [u8; 16]) -> Self {
        Self { name, value: [0; 24] }
    }

    pub(super) fn flags(&self) -> i16 {
        i16::from_ne_bytes([self.value[0], self.value[1]])
    }

    pub(super) fn set_flags(&mut self, flags: i16) {
        self.value[..2].copy_from_slice(&flags.to_ne_bytes());
    }

    pub(super) fn set_int(&mut self, value: i32) {
        self.value[..4].copy_from_slice(&value.to_ne_bytes());
    }

    /// Stores the address of a structure, which has to live until the request has run.
    fn set_pointer(&mut self, data: &mut [u32]) {
        self.value[..8].copy_from_slice(&(data.as_mut_ptr() as u64).to_ne_bytes());
    }

    /// Stores a `struct sockaddr_in`.
    fn set_address(&mut self, address: Ipv4Addr) {
        self.value = [0; 24];
        self.value[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        self.value[4..8].copy_from_slice(&address.octets());
    }

    /// Performs one of the `ioctl`s that take a `struct ifreq`: `TUNSETIFF`,
    /// `TUNGETIFF`, `TUNSETQUEUE`, `SIOCGIFFLAGS`, `SIOCSIFFLAGS`, `SIOCSIFMTU`,
    /// `SIOCSIFADDR`, `SIOCSIFNETMASK`, `SIOCSIFTXQLEN`, and `SIOCETHTOOL` by [`ethtool`].
    #[allow(unsafe_code)]
    pub(super) fn run(
        &mut self,
        fd: &impl AsFd,
        request: libc::Ioctl,
        name: &str,
        step: &'static str,
    ) -> Result<(), WireError> {
        // SAFETY: the descriptor is open as `fd` is borrowed, and `self` has
        // the size and alignment of the `struct ifreq` that all of these
        // requests read and write. What an ethtool request points to is borrowed by
        // `ethtool` and has the size of the structure of its command.
        let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, std::ptr::from_mut(self)) };
        if result >= 0 {
            return Ok(());
        }
        let source = io::Error::last_os_error();
        if request == libc::TUNSETIFF && source.raw_os_error() == Some(libc::EINVAL) {
            return Err(WireError::NotATap(name.to_owned()));
        }
        Err(setup(name, step, source))
    }
}
