//! Eventfds behind interrupt vectors.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwapOption;
use rustix::fs::OFlags;

use super::counters::Counters;
use super::device::Interrupts;
use super::error::Reject;

/// One eventfd a vector. Arming and disarming is done by the connection's
/// thread, raising by any thread and without a lock.
pub struct VectorTable {
    vectors: Box<[ArcSwapOption<File>]>,
    counters: Arc<Counters>,
}

impl VectorTable {
    /// A table of `count` vectors, none armed.
    pub(super) fn new(count: u16, counters: Arc<Counters>) -> Self {
        let vectors = (0..count).map(|_| ArcSwapOption::empty()).collect();
        Self { vectors, counters }
    }

    /// Number of vectors.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.vectors.len()).unwrap_or(u32::MAX)
    }

    /// Arms consecutive vectors; one that was armed gets the new eventfd and
    /// its old one is closed. Vectors past the end are left out; the caller
    /// has checked the range.
    pub(super) fn arm(&self, start: u32, eventfds: impl Iterator<Item = EventFd>) {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        for (vector, eventfd) in self.vectors.iter().skip(start).zip(eventfds) {
            vector.store(Some(Arc::new(eventfd.0)));
        }
    }

    /// The vectors that are armed.
    pub(super) fn armed(&self) -> Vec<(u32, Arc<File>)> {
        let all = self.vectors.iter().enumerate();
        all.filter_map(|(vector, slot)| Some((vector as u32, slot.load_full()?))).collect()
    }

    /// Disarms consecutive vectors and closes their eventfds.
    pub(super) fn disarm(&self, start: u32, count: u32) {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        for vector in self.vectors.iter().skip(start).take(count) {
            vector.store(None);
        }
    }

    /// Disarms all vectors.
    pub(super) fn disarm_all(&self) {
        self.disarm(0, u32::MAX);
    }
}

impl Interrupts for VectorTable {
    fn raise(&self, vector: u16) {
        let counter = match self.vectors.get(usize::from(vector)) {
            None => &self.counters.irqs_unknown,
            Some(slot) => match &*slot.load() {
                None => &self.counters.irqs_unarmed,
                Some(file) => match rustix::io::write(&**file, &1u64.to_ne_bytes()) {
                    Ok(_) => &self.counters.irqs_raised,
                    Err(_) => &self.counters.irqs_failed,
                },
            },
        };
        counter.fetch_add(1, Relaxed);
    }
}

/// A descriptor that has been found to be an eventfd that does not block.
#[derive(Debug)]
pub(crate) struct EventFd(File);

impl EventFd {
    /// Takes a client's descriptor.
    ///
    /// Anything but an eventfd is refused: a write to a pipe, a socket or a
    /// file could block or fill a disk. A blocking eventfd (QEMU's are not) is
    /// made non-blocking, as a full one would stop the thread that raises it.
    /// The flag belongs to the open file, which the client shares: one that
    /// clears it later, and fills the counter, can still stop its own device.
    ///
    /// # Errors
    /// [`Reject::IrqFd`].
    pub(crate) fn new(fd: OwnedFd) -> Result<Self, Reject> {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let target = std::fs::read_link(link).map_err(|_| Reject::IrqFd("cannot be examined"))?;
        if target.as_os_str() != "anon_inode:[eventfd]" {
            return Err(Reject::IrqFd("not an eventfd"));
        }
        let unusable = |_| Reject::IrqFd("cannot be made non-blocking");
        let flags = rustix::fs::fcntl_getfl(&fd).map_err(unusable)?;
        if !flags.contains(OFlags::NONBLOCK) {
            rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(unusable)?;
        }
        Ok(Self(File::from(fd)))
    }

    /// Signals whoever waits. A counter that is full is signal enough.
    pub(crate) fn signal(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Takes the signals that came.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl std::os::fd::AsFd for EventFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    fn value(fd: &OwnedFd) -> u64 {
        let mut value = [0; 8];
        rustix::io::read(fd, &mut value).map_or(0, |_| u64::from_ne_bytes(value))
    }

    #[test]
    fn raising_counts_what_it_could_not_deliver() {
        let counters = Arc::new(Counters::default());
        let table = VectorTable::new(4, counters.clone());
        let ours = eventfd(0, EventfdFlags::NONBLOCK).expect("eventfd");
        table.arm(2, std::iter::once(EventFd::new(ours.try_clone().expect("dup")).expect("eventfd")));
        for vector in [2, 1, 4, u16::MAX, 2] {
            table.raise(vector);
        }
        assert_eq!(value(&ours), 2);
        table.disarm_all();
        table.raise(2);
        let seen = counters.snapshot();
        assert_eq!((seen.irqs_raised, seen.irqs_unarmed, seen.irqs_unknown), (2, 2, 2));
    }

    #[test]
    fn a_full_blocking_eventfd_does_not_stop_us() {
        let counters = Arc::new(Counters::default());
        let table = VectorTable::new(1, counters.clone());
        let ours = eventfd(0, EventfdFlags::empty()).expect("eventfd");
        rustix::io::write(&ours, &(u64::MAX - 1).to_ne_bytes()).expect("room");
        table.arm(0, std::iter::once(EventFd::new(ours).expect("eventfd")));
        table.raise(0);
        assert_eq!(counters.snapshot().irqs_failed, 1);
    }

    #[test]
    fn only_eventfds_are_taken() {
        let null = std::fs::File::open("/dev/null").expect("null");
        assert!(EventFd::new(null.into()).is_err());
        let (pipe, _other) = std::io::pipe().expect("pipe");
        assert!(EventFd::new(pipe.into()).is_err());
    }
}
