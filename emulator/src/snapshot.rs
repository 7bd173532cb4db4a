//! Snapshots of the device as files.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use sfnic_device_model::Nic;
use sfnic_device_model::snapshot::SnapshotError;

/// What every snapshot begins with.
const BEGIN: &[u8] = b"sfnic-snapshot ";
/// Longer files are no snapshots: a million rules take a tenth of it.
const LONGEST: u64 = 4 << 30;

/// Why a snapshot was not saved or loaded, in words for the user.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The file cannot be read or written.
    #[error("{0}")]
    File(#[from] io::Error),
    /// What is there would be lost.
    #[error("it is there already and no snapshot; allowed is a new file, or a snapshot to replace")]
    Taken,
    /// The device, or the file's content.
    #[error("{0}")]
    Device(#[from] SnapshotError),
}

/// Writes the state of a device to a file, whole or not at all; how many bytes. A snapshot that
/// is there is replaced, anything else is not.
///
/// # Errors
/// Something else is there, the file cannot be written, or the device does not come to rest.
pub fn save(nic: &Nic, file: &Path) -> Result<u64, Failed> {
    match File::open(file) {
        Ok(there) => {
            let mut begin = vec![];
            let regular = there.metadata()?.is_file();
            if !regular || there.take(BEGIN.len() as u64).read_to_end(&mut begin).is_err() || begin != BEGIN {
                return Err(Failed::Taken);
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e.into()),
    }
    // Before the device is stopped for it.
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::Builder::new().prefix(".sfnic-snapshot-").tempfile_in(folder)?;
    let bytes = nic.save()?;
    new.write_all(&bytes)?;
    new.as_file().sync_all()?;
    new.persist(file).map_err(|e| e.error)?;
    Ok(bytes.len() as u64)
}

/// Brings a device to the state in a file; how many bytes it has.
///
/// # Errors
/// The file cannot be read, or the device refuses it.
pub fn load(nic: &Nic, file: &Path) -> Result<u64, Failed> {
    let there = File::open(file)?;
    if !there.metadata()?.is_file() {
        return Err(SnapshotError::Foreign.into());
    }
    let mut bytes = vec![];
    there.take(LONGEST).read_to_end(&mut bytes)?;
    nic.load(&bytes)?;
    Ok(bytes.len() as u64)
}
