//! A frame on its way through the device.

/// A frame in flight.
pub struct Frame<'m> {
    of: std::marker::PhantomData<&'m ()>,
}
