//! From a frame into the buffers of a receive WQE.

use vm_memory::VolatileSlice;

use super::rq::RxFrame;
use crate::dma::{DmaError, Near};

/// Where a VLAN tag lies in a frame, and its length.
pub(super) const VLAN_AT: usize = 12;
pub(super) const VLAN_LEN: usize = 4;

/// What is to be written: the frame, less its VLAN tag, and its check sequence.
pub(super) struct Source<'a, F> {
    pub(super) frame: &'a F,
    /// Without its tag.
    pub(super) strip: bool,
    /// Bytes of the frame that are written.
    pub(super) body: usize,
    pub(super) fcs: Option<[u8; 4]>,
}

/// What went wrong.
pub(super) enum Scatter {
    /// The sender's memory is gone.
    Source,
    /// The buffer is not mapped.
    Buffer,
}

/// Writes a frame into the ranges of its buffer.
pub(super) fn scatter<F: RxFrame>(
    mem: &Near<'_>,
    ranges: &[(u64, u32)],
    source: &Source<'_, F>,
) -> Result<(), Scatter> {
    scatter_with(mem, ranges, |pos, piece| source.put(pos, piece))
}

/// Has `put` write the bytes from its first argument on, piece by piece.
pub(super) fn scatter_with(
    mem: &Near<'_>,
    ranges: &[(u64, u32)],
    mut put: impl FnMut(usize, VolatileSlice<'_>) -> Result<(), DmaError>,
) -> Result<(), Scatter> {
    let mut pos = 0;
    let mut fault = false;
    for &(iova, len) in ranges {
        let mapped = mem.slices_to_write(iova, len as usize, |piece| {
            let n = piece.len();
            fault = fault || put(pos, piece).is_err();
            pos += n;
        });
        if mapped.is_err() {
            return Err(Scatter::Buffer);
        }
        if fault {
            return Err(Scatter::Source);
        }
    }
    Ok(())
}

impl<F: RxFrame> Source<'_, F> {
    /// Writes the bytes from `pos` of what is written into `dst`.
    fn put(&self, mut pos: usize, dst: VolatileSlice<'_>) -> Result<(), DmaError> {
        if !self.strip && pos + dst.len() <= self.body {
            return self.frame.copy_to(pos, &dst);
        }
        let fault = DmaError { iova: 0, len: dst.len() };
        let mut at = 0;
        while at < dst.len() {
            // Up to where the tag was, from there on, behind the frame.
            let (end, offset) = match () {
                () if self.strip && pos < VLAN_AT => (VLAN_AT, pos),
                () if pos < self.body => (self.body, pos + if self.strip { VLAN_LEN } else { 0 }),
                () => break,
            };
            let n = (end - pos).min(dst.len() - at);
            self.frame.copy_to(offset, &dst.subslice(at, n).map_err(|_| fault)?)?;
            at += n;
            pos += n;
        }
        if at < dst.len() {
            let fcs = self.fcs.unwrap_or_default();
            let tail = fcs.get(pos - self.body..).unwrap_or(&[]);
            dst.offset(at).map_err(|_| fault)?.copy_from(tail);
        }
        Ok(())
    }
}
