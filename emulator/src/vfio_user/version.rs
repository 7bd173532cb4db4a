//! The capability exchange.

use serde::{Deserialize, Serialize};

use super::dma::MAX_REGIONS;
use super::error::Reject;
use super::payload::VersionRequest;
use super::protocol::{MAX_DATA_XFER, MAX_MSG_FDS, PAGE_SIZE};

/// Our major version.
const MAJOR: u16 = 0;
/// Our minor version: the first, so no client proposes a lower one.
const MINOR: u16 = 0;
/// Longest capability string we read, in bytes. QEMU's has about 150.
const MAX_DATA: usize = 16 * 1024;

/// What a client says about itself. Fields we do not use are skipped, but one
/// that we know must have its type.
#[derive(Debug, Default, Deserialize)]
struct Proposal {
    #[serde(default)]
    capabilities: Capabilities,
}

/// Capabilities of a client.
#[derive(Debug, Default, Deserialize)]
#[allow(dead_code)] // read for their types
struct Capabilities {
    max_msg_fds: Option<u64>,
    max_data_xfer_size: Option<u64>,
    max_dma_maps: Option<u64>,
    pgsizes: Option<u64>,
    write_multiple: Option<bool>,
}

#[derive(Serialize)]
struct Answer {
    capabilities: OurCapabilities,
}

#[derive(Serialize)]
struct OurCapabilities {
    max_msg_fds: usize,
    max_data_xfer_size: usize,
    max_dma_maps: usize,
    pgsizes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_multiple: Option<bool>,
}

/// Appends our answer to a client's proposal.
///
/// The limits are ours whatever the client's are: none of our messages comes
/// near what a client may lower them to (one descriptor, and never more data
/// than it asked for). Combined writes are offered only to a client that
/// offers them.
///
/// # Errors
/// [`Reject::VersionMajor`] if there is no common version, after which the
/// connection must end; others if the capability string is malformed.
pub(crate) fn negotiate(request: &VersionRequest<'_>, out: &mut Vec<u8>) -> Result<(), Reject> {
    let &VersionRequest { major, minor, .. } = request;
    if major != MAJOR {
        return Err(Reject::VersionMajor { major, minor });
    }
    let proposal = parse(request.data)?;
    let answer = Answer {
        capabilities: OurCapabilities {
            max_msg_fds: MAX_MSG_FDS,
            max_data_xfer_size: MAX_DATA_XFER,
            max_dma_maps: MAX_REGIONS,
            pgsizes: PAGE_SIZE,
            write_multiple: proposal.capabilities.write_multiple.filter(|&offered| offered),
        },
    };
    out.extend_from_slice(&MAJOR.to_ne_bytes());
    out.extend_from_slice(&MINOR.to_ne_bytes());
    serde_json::to_writer(&mut *out, &answer)?;
    out.push(0);
    Ok(())
}

fn parse(data: &[u8]) -> Result<Proposal, Reject> {
    if data.is_empty() {
        return Ok(Proposal::default());
    }
    if data.len() > MAX_DATA {
        return Err(Reject::VersionData("too long"));
    }
    let Some((0, text)) = data.split_last() else {
        return Err(Reject::VersionData("no terminating NUL"));
    };
    if text.contains(&0) {
        return Err(Reject::VersionData("data after the terminating NUL"));
    }
    let text = std::str::from_utf8(text).map_err(|_| Reject::VersionData("not UTF-8"))?;
    // By way of a value: derived structures would also accept lists.
    let value: serde_json::Value = serde_json::from_str(text)?;
    let is_object = |value: Option<&serde_json::Value>| value.is_none_or(|v| v.is_object());
    if !is_object(Some(&value)) || !is_object(value.get("capabilities")) {
        return Err(Reject::VersionData("not an object"));
    }
    Ok(serde_json::from_value(value)?)
}
