//! Frames: parsing, checksums, segmentation, hashing, header edits.
//!
//! A [`Frame`] carries its headers in a buffer of its own and leaves the rest
//! where the sender put it, so that a payload is copied once: into the
//! receiver's buffer. Everything here is a function of the frame alone; no
//! lock, no clock, no memory outside the slices a frame was given.
//!
//! Not modelled: GTP-U, MACsec and IPsec headers beyond the SPI, programmable
//! samples, Geneve options as match fields, checksums of SCTP.

pub mod action;
mod at_once;
pub mod checksum;
pub mod edit;
pub mod explain;
pub mod frame;
pub mod headers;
pub mod key;
pub mod layers;
pub mod lro;
pub mod lso;
mod parse;
mod parse_tunnel;
mod plain;
pub mod quick;
pub mod reformat;
pub mod toeplitz;
mod volatile;

#[cfg(test)]
mod props;
#[cfg(test)]
pub(crate) mod samples;

pub use action::HeaderAction;
pub use frame::{Frame, GuestSlice, Meta, Piece};
pub use key::MatchKey;
pub use layers::{Fragment, GeneveOption, L3, L4, Layers, Tunnel, TunnelPorts};
pub use quick::{FlowKey, Sender};
pub use reformat::Reformat;
