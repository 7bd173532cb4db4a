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
/// for another program to attach to.
///
/// # Errors
/// [`WireError`]; [`WireError::Busy`] if a program has an interface of that name.
pub fn create_persistent_tap(name: &str) -> Result<(), WireError> {
    let file: File = open_tun(name)?;
    let mut request = Request::new(raw_name(name)?);
    request.set_flags((libc::IFF_TAP | libc::IFF_NO_PI) as i16);
    request.run(&file, libc::TUNSETIFF, name, "create")?;
    tun_set(&file, libc::TUNSETPERSIST, 1).map_err(|e| setup(name, "keep", e))
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
        Some(libc::EBUSY) => WireError::Busy(name.to_owned()),
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

    /// Stores a `struct sockaddr_in`.
    fn set_address(&mut self, address: Ipv4Addr) {
        self.value = [0; 24];
        self.value[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        self.value[4..8].copy_from_slice(&address.octets());
    }

    /// Performs one of the `ioctl`s that take a `struct ifreq`: `TUNSETIFF`,
    /// `SIOCGIFFLAGS`, `SIOCSIFFLAGS`, `SIOCSIFMTU`, `SIOCSIFADDR`,
    /// `SIOCSIFNETMASK`.
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
        // requests read and write.
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
