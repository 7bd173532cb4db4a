//! `[[slice]]`: slices that are there from the beginning.

use std::path::{Path, PathBuf};

use sfnic_device_model::nic::Manager;
use sfnic_device_model::pci::MSIX_MAX;
use sfnic_device_model::slice::{Change, FIRST_INDEX, Flavour, MAX_SFNUM, Spec, State};

use super::mac::Mac;
use super::{Parsed, PfConfig, Section};

/// The keys of a section.
pub(super) const KEYS: &[&str] = &["flavour", "pf", "number", "index", "hw_addr", "state", "socket", "vectors"];
/// Most sections.
pub(super) const MOST: usize = 256;

/// A slice that is there from the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceConfig {
    /// What it is to its guest.
    pub flavour: Flavour,
    /// Its physical function.
    pub pf: usize,
    /// The user's number of it (`sfnum`).
    pub number: u32,
    /// The user's number of the slice.
    pub index: u32,
    /// Its address; zero for none.
    pub hw_addr: [u8; 6],
    /// Whether it is active from the beginning.
    pub active: bool,
    /// Where its guest finds it; without it beside the physical functions' sockets.
    pub socket: Option<PathBuf>,
    /// MSI-X vectors of a passthrough slice.
    pub vectors: Option<u16>,
}

impl SliceConfig {
    /// What the device is asked for.
    pub fn spec(&self) -> Spec {
        Spec {
            flavour: self.flavour,
            pfnum: self.pf as u32,
            sfnum: Some(self.number),
            index: Some(self.index),
            vectors: self.vectors,
            socket: self.socket.as_ref().map(|p| p.display().to_string()),
        }
    }

    /// What is set of it once it is there.
    pub fn change(&self) -> Change {
        Change {
            hw_addr: (self.hw_addr != [0; 6]).then_some(self.hw_addr),
            state: self.active.then_some(State::Active),
            ..Change::default()
        }
    }
}

/// The file name of a slice's socket, in the directory of the physical functions'.
pub fn socket_name(index: u32) -> String {
    format!("slice{index}.sock")
}

/// A section; `others` came before it.
pub(super) fn parse(
    s: &Section<'_>,
    pfs: &[PfConfig],
    others: &[SliceConfig],
    base: Option<&Path>,
) -> Parsed<SliceConfig> {
    s.only(KEYS)?;
    let wrong = |key: &str, text: &str, allowed: &str| format!("{} = {text:?}: allowed is {allowed}", s.key(key));
    let pf = s.number("pf", (0, pfs.len() as i64 - 1))?.unwrap_or(0).unsigned_abs() as usize;
    let host = pfs.get(pf).is_some_and(|pf| pf.card.manager == Manager::Host);
    let allowed = match host {
        true => "\"passthrough\" or \"virtio\" (the host adds its own: devlink port add)",
        false => "\"passthrough\", \"virtio\" or \"pcisf\"",
    };
    let flavour = match s.text("flavour", allowed)? {
        Some("passthrough") => Flavour::Passthrough,
        Some("virtio") => Flavour::Virtio,
        Some("pcisf") if !host => Flavour::PciSf,
        Some(text) => return Err(wrong("flavour", text, allowed)),
        None => return Err(format!("{}: allowed is {allowed}", s.key("flavour"))),
    };
    let allowed = (0, i64::from(MAX_SFNUM));
    let number = s.number("number", allowed)?;
    let number =
        number.ok_or_else(|| format!("{}: allowed is 0 to {MAX_SFNUM}", s.key("number")))?.unsigned_abs() as u32;
    if others.iter().any(|o| (o.pf, o.number) == (pf, number)) {
        return Err(format!("{} = {number}: allowed is a number that no other slice of pf {pf} has", s.key("number")));
    }
    let taken = |i: u32| others.iter().any(|o| o.index == i);
    let index = match s.number("index", (FIRST_INDEX.into(), u32::MAX.into()))? {
        Some(i) if taken(i.unsigned_abs() as u32) => {
            return Err(format!("{} = {i}: allowed is an index that no other slice has", s.key("index")));
        }
        Some(i) => i.unsigned_abs() as u32,
        None => (FIRST_INDEX..u32::MAX).find(|i| !taken(*i)).unwrap_or(FIRST_INDEX),
    };
    let allowed = "six pairs of hexadecimal digits, no multicast address: \"52:54:00:5f:00:88\"";
    let hw_addr = match s.text("hw_addr", allowed)? {
        None => [0; 6],
        Some(text) => {
            let unicast = Mac::parse(text).filter(|mac| *mac != [0; 6] && mac[0] & 1 == 0);
            unicast.ok_or_else(|| wrong("hw_addr", text, allowed))?
        }
    };
    let allowed = "\"active\" or \"inactive\"";
    let active = match s.text("state", allowed)? {
        None | Some("active") => true,
        Some("inactive") => false,
        Some(text) => return Err(wrong("state", text, allowed)),
    };
    let of_a_guest = flavour.is_of_a_guest();
    let socket = s.text("socket", "the path of a socket in quotes")?;
    if let Some(text) = socket.filter(|p| p.is_empty() || !of_a_guest) {
        return Err(wrong("socket", text, "the path of a socket, for flavours passthrough and virtio"));
    }
    let vectors = s.number("vectors", (1, MSIX_MAX.into()))?;
    if let Some(n) = vectors.filter(|_| flavour != Flavour::Passthrough) {
        return Err(format!("{} = {n}: allowed with flavour = \"passthrough\"", s.key("vectors")));
    }
    let socket = socket.map(|p| base.map_or_else(|| p.into(), |base| base.join(p)));
    let vectors = vectors.and_then(|n| u16::try_from(n).ok());
    Ok(SliceConfig { flavour, pf, number, index, hw_addr, active, socket, vectors })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, error};
    use super::*;

    #[test]
    fn slices_have_numbers_and_defaults() {
        let c = config(
            "[[slice]]\nflavour = 'passthrough'\nnumber = 88\nindex = 100\nhw_addr = '02:00:00:00:00:88'\nvectors = 9\n\
             [[slice]]\nflavour = 'virtio'\npf = 1\nnumber = 88\nstate = 'inactive'\nsocket = '/run/x'",
        );
        let [a, b] = &c.slices[..] else { panic!("two slices") };
        assert_eq!((a.flavour, a.pf, a.number, a.index, a.active), (Flavour::Passthrough, 0, 88, 100, true));
        assert_eq!((a.hw_addr, a.vectors, a.socket.clone()), ([2, 0, 0, 0, 0, 0x88], Some(9), None));
        assert_eq!((b.flavour, b.pf, b.number, b.index, b.active), (Flavour::Virtio, 1, 88, FIRST_INDEX, false));
        assert_eq!(b.spec().socket.as_deref(), Some("/run/x"));
        assert_eq!(config("eswitch = 'embedded'\n[[slice]]\nflavour = 'pcisf'\nnumber = 4").slices.len(), 1);
    }

    #[test]
    fn what_is_wrong_with_a_slice_is_one_line() {
        let one = "[[slice]]\nflavour = 'virtio'\nnumber = 1\n";
        for (text, said) in [
            ("[[slice]]".to_owned(), "slice[0].flavour: allowed is \"passthrough\" or \"virtio\""),
            ("[[slice]]\nflavour = 'pcisf'".to_owned(), "slice[0].flavour = \"pcisf\": allowed is \"passthrough\""),
            ("[[slice]]\nflavour = 'virtio'".to_owned(), "slice[0].number: allowed is 0 to 65535"),
            (format!("{one}pf = 2"), "slice[0].pf = 2: allowed is 0 to 1"),
            (format!("{one}index = 3"), "slice[0].index = 3: allowed is 16 to"),
            (format!("{one}state = 'on'"), "slice[0].state = \"on\": allowed is \"active\" or \"inactive\""),
            (format!("{one}hw_addr = '01:00:00:00:00:00'"), "slice[0].hw_addr = \"01:00:00:00:00:00\": allowed is six"),
            (format!("{one}vectors = 3"), "slice[0].vectors = 3: allowed with flavour"),
            (format!("{one}speed = 3"), "slice[0].speed = 3: no such key; there is flavour, pf, number"),
            (format!("{one}{one}"), "slice[1].number = 1: allowed is a number that no other slice of pf 0 has"),
            (format!("{one}index = 20\n{one}pf = 1\nindex = 20"), "slice[1].index = 20: allowed is an index"),
            ("slice = 3".to_owned(), "slice = 3: allowed is up to 256 sections [[slice]]"),
        ] {
            let e = error(&text);
            assert!(e.starts_with(said), "{text}: {e}");
        }
    }
}
