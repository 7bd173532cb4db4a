//! Frames: parsing, checksums, segmentation, hashing, header edits.

pub mod frame;
pub mod key;

pub use frame::Frame;
pub use key::MatchKey;
