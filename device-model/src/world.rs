//! What the chip needs from the world around it. The model reads no clock and
//! no socket by itself, so the same chip runs in a unit test, a fuzzer and
//! behind QEMU.

/// Raises interrupts of one PCI function.
pub trait Interrupts: Send + Sync {
    /// Fires MSI-X vector `vector`. A vector that nobody listens to is lost,
    /// as on a card whose table entry is masked for ever.
    fn raise(&self, vector: u16);
}

/// Time since an arbitrary start, in nanoseconds; never goes back.
pub trait Clock: Send + Sync {
    /// Nanoseconds.
    fn now_ns(&self) -> u64;
}

/// Tells the threads that run the model that there is work.
pub trait Waker: Send + Sync {
    /// May be called from any thread, often.
    fn wake(&self);
}

/// UAR pages that are plain memory: drivers write their doorbells there, and nobody is told.
pub trait Doorbells: Send + Sync + std::fmt::Debug {
    /// Takes the 8 bytes at an offset of a BAR, as the driver wrote them, in one piece, and
    /// leaves zeros. Zeros where nothing was written since, or no such page is. What the
    /// driver wrote to its memory before is seen afterwards.
    fn take(&self, bar: u8, offset: u64) -> [u8; 8];
}

/// The far end of a physical port.
pub trait Wire: Send + Sync {
    /// Takes a frame that leaves the port: the pieces of guest memory and
    /// headers that make it up, in order. Returns false where it was dropped.
    fn transmit(&self, frame: &crate::packet::Frame<'_>) -> bool;

    /// Whether it takes a TCP message instead of its segments: only payload, ACK and PSH.
    fn takes_message(&self, _message: &crate::packet::Frame<'_>) -> bool {
        false
    }

    /// As [`Self::transmit`] of all segments of a message that [`Self::takes_message`] wants, of
    /// `mss` bytes of payload each (the last may have fewer): as large send offload makes them of
    /// the message, whose IP lengths and checksums are not to be read. False where they were
    /// dropped.
    fn transmit_message(&self, _message: &crate::packet::Frame<'_>, _mss: usize) -> bool {
        false
    }

    /// Whether the far end is there. When this changes, whoever runs the wire
    /// calls [`crate::nic::Nic::update_links`].
    fn carrier(&self) -> bool {
        true
    }

    /// The calling thread has no more frames for now: what [`Self::transmit`]
    /// held back for the sake of the next one leaves. Returns how many frames
    /// were dropped that `transmit` seemed to take.
    fn flush(&self) -> u64 {
        0
    }
}
