//! The file that describes a device and its guests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sfnic_device_model::slice::default_address;
use sfnic_qemu::What;
use sfnic_qemu::kit::DEFAULT_LINE;
use toml::{Table, Value};

use crate::cli::value::{self, Kernel};
use crate::config::{self, Config, ConfigError, Parsed, Section, SliceConfig, refuse};

const TOP_KEYS: &[&str] = &["nic", "guest", "share", "timeout"];
const GUEST_KEYS: &[&str] =
    &["name", "endpoints", "script", "command", "cpus", "mem", "kernel", "queues", "env", "driver"];
/// Most guests of a file.
const MAX_GUESTS: usize = 8;

/// A device and its guests.
#[derive(Debug)]
pub(super) struct Lab {
    /// The device; its ports that guests are at lead to sockets of `dir`.
    pub(super) nic: Config,
    pub(super) guests: Vec<GuestSpec>,
    /// What all guests see at `/host`.
    pub(super) share: Option<PathBuf>,
    /// The longest that all of it may take.
    pub(super) timeout: Option<Duration>,
}

/// A guest.
#[derive(Debug)]
pub(super) struct GuestSpec {
    pub(super) name: String,
    /// Physical functions, by number.
    pub(super) pfs: Vec<usize>,
    /// Ports whose far end it is, by number.
    pub(super) ports: Vec<usize>,
    /// Slices that are its devices, by index.
    pub(super) slices: Vec<u32>,
    pub(super) what: What,
    pub(super) cpus: u32,
    pub(super) mem: String,
    pub(super) kernel: Kernel,
    /// Queue pairs of its virtio devices.
    pub(super) queues: u8,
    pub(super) env: Vec<(String, String)>,
    /// Whether the mlx5 driver is loaded before its job.
    pub(super) driver: bool,
}

/// The socket of the port's far end.
pub(super) fn port_socket(dir: &Path, port: usize) -> PathBuf {
    dir.join(format!("port{port}.sock"))
}

/// The socket of a slice that is a device of a guest.
pub(super) fn slice_socket(dir: &Path, slice: &SliceConfig) -> PathBuf {
    slice.socket.clone().unwrap_or_else(|| dir.join(config::socket_name(slice.index)))
}

/// The address of a guest's virtio device that is a slice: the slice's, or one of ours.
pub(super) fn slice_mac(slice: &SliceConfig) -> [u8; 6] {
    if slice.hw_addr != [0; 6] { slice.hw_addr } else { default_address(slice.index) }
}

/// Reads a file; sockets of ports will be in `dir`.
///
/// # Errors
/// The file cannot be read, or something in it is wrong: one line.
pub(super) fn load(path: &Path, dir: &Path) -> Result<Lab, ConfigError> {
    let fail = |problem| ConfigError { file: path.display().to_string(), problem };
    let text = std::fs::read_to_string(path).map_err(|e| fail(format!("cannot read it: {e}")))?;
    parse(&text, path.parent().unwrap_or(Path::new(".")), dir).map_err(fail)
}

fn parse(text: &str, base: &Path, dir: &Path) -> Parsed<Lab> {
    let table = config::table(text)?;
    let top = Section { at: String::new(), table: &table };
    top.only(TOP_KEYS)?;
    let guests = guests(&table, base)?;
    let nic = nic(&table, &guests, dir)
        .and_then(|nic| config::parse(&nic, Some(base)).map_err(|why| format!("nic.{why}")))?;
    for (i, guest) in guests.iter().enumerate() {
        if let Some(pf) = guest.pfs.iter().find(|pf| **pf >= nic.pfs.len()) {
            let allowed = format!("pf0 to pf{}", nic.pfs.len() - 1);
            return Err(format!("guest[{i}].endpoints has \"pf{pf}\": allowed is {allowed}"));
        }
        for n in &guest.slices {
            let slice = nic.slices.iter().find(|s| s.index == *n);
            if !slice.is_some_and(|s| s.flavour.is_of_a_guest()) {
                let known = nic.slices.iter().filter(|s| s.flavour.is_of_a_guest());
                let known: Vec<String> = known.map(|s| format!("slice{}", s.index)).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(format!(
                    "guest[{i}].endpoints has \"slice{n}\": allowed are slices of a [[nic.slice]] of flavour passthrough \
                     or virtio: {known}"
                ));
            }
        }
    }
    let allowed = "the path of a directory in quotes";
    let share = top.text("share", allowed)?.map(|p| base.join(p));
    if let Some(share) = share.as_ref().filter(|p| !p.is_dir()) {
        return Err(format!("share = {share:?}: allowed is {allowed}"));
    }
    let timeout = top.number("timeout", (1, 1_000_000))?;
    Ok(Lab { nic, guests, share, timeout: timeout.map(|s| Duration::from_secs(s.unsigned_abs())) })
}

/// The table of the device, in which the ports that guests are at have their wires.
fn nic(table: &Table, guests: &[GuestSpec], dir: &Path) -> Parsed<Table> {
    let mut nic = match table.get("nic") {
        None => Table::new(),
        Some(Value::Table(nic)) => nic.clone(),
        Some(other) => return Err(refuse("nic", other, "a section [nic], with what --config has")),
    };
    let ports: Vec<usize> = guests.iter().flat_map(|g| g.ports.iter().copied()).collect();
    if ports.is_empty() {
        return Ok(nic);
    }
    let pfs = nic.entry("pf").or_insert_with(|| Value::Array(vec![Value::Table(Table::new()); 2]));
    for port in ports {
        let pf = pfs.as_array_mut().and_then(|list| list.get_mut(port)).and_then(Value::as_table_mut);
        let pf = pf.ok_or_else(|| format!("\"port{port}\" is an endpoint: allowed are ports of a [[nic.pf]]"))?;
        if pf.contains_key("wire") {
            return Err(format!("nic.pf[{port}].wire: allowed where no guest has the endpoint \"port{port}\""));
        }
        let socket = port_socket(dir, port);
        pf.insert("wire".to_owned(), Value::String(format!("vhost-user:{}", socket.display())));
    }
    Ok(nic)
}

fn guests(table: &Table, base: &Path) -> Parsed<Vec<GuestSpec>> {
    let allowed = format!("1 to {MAX_GUESTS} sections [[guest]]");
    let Some(value) = table.get("guest") else { return Err(format!("guest: allowed is {allowed}")) };
    let list = value.as_array().filter(|l| (1..=MAX_GUESTS).contains(&l.len()));
    let list = list.ok_or_else(|| refuse("guest", value, &allowed))?;
    let mut names = BTreeSet::new();
    let mut taken = BTreeSet::new();
    let mut guests = vec![];
    for (i, value) in list.iter().enumerate() {
        let table = value.as_table().ok_or_else(|| refuse("guest", value, &allowed))?;
        let section = Section { at: format!("guest[{i}]."), table };
        let guest = guest(&section, i, base)?;
        if !names.insert(guest.name.clone()) {
            return Err(format!("guest[{i}].name = {:?}: allowed is a name that no other guest has", guest.name));
        }
        let ends = guest.pfs.iter().map(|n| ("pf", *n)).chain(guest.ports.iter().map(|n| ("port", *n)));
        let ends = ends.chain(guest.slices.iter().map(|n| ("slice", *n as usize)));
        for end in ends {
            if !taken.insert(end) {
                let (kind, n) = end;
                return Err(format!("guest[{i}].endpoints has \"{kind}{n}\": another guest has it already"));
            }
        }
        guests.push(guest);
    }
    Ok(guests)
}

fn guest(s: &Section<'_>, index: usize, base: &Path) -> Parsed<GuestSpec> {
    s.only(GUEST_KEYS)?;
    let wrong = |key: &str, text: &str, allowed: &str| format!("{} = {text:?}: allowed is {allowed}", s.key(key));
    let allowed = "1 to 16 letters, digits, - or _";
    let name = s.text("name", allowed)?.map_or_else(|| format!("guest{index}"), str::to_owned);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !(1..=16).contains(&name.len()) || !name.chars().all(plain) {
        return Err(wrong("name", &name, allowed));
    }
    let (mut pfs, mut ports, mut slices) = (vec![], vec![], vec![]);
    let allowed = "a list such as [\"pf0\"], [\"port1\"] or [\"slice100\"]: physical functions, the far ends of their \
                   ports, and slices by their index";
    match s.table.get("endpoints") {
        None => {}
        Some(value) => {
            for end in value.as_array().ok_or_else(|| refuse(&s.key("endpoints"), value, allowed))? {
                let text = end.as_str().ok_or_else(|| refuse(&s.key("endpoints"), value, allowed))?;
                let number = |kind| text.strip_prefix(kind).and_then(|n| n.parse::<usize>().ok()).filter(|n| *n < 8);
                let slice = text.strip_prefix("slice").and_then(|n| n.parse::<u32>().ok());
                match (number("pf"), number("port"), slice) {
                    (Some(n), _, _) => pfs.push(n),
                    (_, Some(n), _) => ports.push(n),
                    (_, _, Some(n)) => slices.push(n),
                    _ => return Err(wrong("endpoints", text, allowed)),
                }
            }
        }
    }
    let said = |why: String| why.strip_prefix("allowed is ").map_or(why.clone(), str::to_owned);
    let kernel = s.text("kernel", "a line of kernels or a path")?.unwrap_or(DEFAULT_LINE);
    let mem = s.text("mem", "256M to 1024G, such as \"1G\"")?.unwrap_or("1G");
    let number = |key, range, default: i64| Ok::<_, String>(s.number(key, range)?.unwrap_or(default).unsigned_abs());
    let driver = match s.table.get("driver") {
        None => true,
        Some(v) => v.as_bool().ok_or_else(|| refuse(&s.key("driver"), v, "true or false"))?,
    };
    Ok(GuestSpec {
        what: job(s, base)?,
        cpus: number("cpus", (1, 64), 2)? as u32,
        mem: value::memory(mem).map_err(|why| wrong("mem", mem, &said(why)))?,
        kernel: value::kernel(kernel).map_err(|why| wrong("kernel", kernel, &said(why)))?,
        queues: number("queues", (1, crate::wire::vhost::MAX_PAIRS as i64), 1)? as u8,
        env: environment(s)?,
        name,
        pfs,
        ports,
        slices,
        driver,
    })
}

/// What a guest runs.
fn job(s: &Section<'_>, base: &Path) -> Parsed<What> {
    let script = s.text("script", "the path of a file in quotes")?;
    let allowed = "a list of words in quotes: [\"ip\", \"link\"]";
    match (script, s.table.get("command")) {
        (Some(script), None) => {
            let path = base.join(script);
            match std::fs::File::open(&path) {
                Ok(_) if path.is_file() => Ok(What::Script(path)),
                _ => Err(format!("{} = {script:?}: allowed is a file that can be read", s.key("script"))),
            }
        }
        (None, Some(value)) => {
            let words = value.as_array().filter(|l| !l.is_empty());
            let words = words.and_then(|l| l.iter().map(|w| Some(w.as_str()?.into())).collect::<Option<Vec<_>>>());
            words.map(What::Command).ok_or_else(|| refuse(&s.key("command"), value, allowed))
        }
        (Some(_), Some(_)) => Err(format!("{}: allowed without script", s.key("command"))),
        (None, None) => Err(format!("{}: a guest needs a script or a command", s.key("script"))),
    }
}

fn environment(s: &Section<'_>) -> Parsed<Vec<(String, String)>> {
    let Some(value) = s.table.get("env") else { return Ok(vec![]) };
    let allowed = "a table of texts: { NAME = \"value\" }";
    let wrong = || refuse(&s.key("env"), value, allowed);
    let pairs = value.as_table().ok_or_else(wrong)?.iter();
    pairs.map(|(k, v)| Ok((k.clone(), v.as_str().ok_or_else(wrong)?.to_owned()))).collect()
}

/// The address of a guest's virtio device at a port.
pub(super) fn virtio_mac(port: usize) -> [u8; 6] {
    [0x52, 0x54, 0x00, 0x5e, 0x00, port as u8]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::WireKind;

    fn read(text: &str) -> Parsed<Lab> {
        parse(text, Path::new("."), Path::new("/run/x"))
    }

    #[test]
    fn ports_of_guests_get_sockets() {
        let lab = read(
            "timeout = 9\n[[guest]]\nname = 'a'\nendpoints = ['pf0']\ncommand = ['true']\n[[guest]]\n\
             endpoints = ['port0']\ncommand = ['ip', 'link']\nqueues = 2\nenv = { A = 'b' }",
        )
        .unwrap();
        let socket = PathBuf::from("/run/x/port0.sock");
        assert!(
            matches!(&lab.nic.pfs[0].wire, WireKind::Vhost(m) if *m == crate::wire::vhost::Meeting::Server(socket))
        );
        assert_eq!(lab.nic.pfs[1].wire, WireKind::None);
        let [a, b] = &lab.guests[..] else { panic!("two guests") };
        assert_eq!((a.name.as_str(), &a.pfs[..], a.ports.len()), ("a", &[0][..], 0));
        assert_eq!((b.name.as_str(), &b.ports[..], b.queues), ("guest1", &[0][..], 2));
        assert_eq!(lab.timeout, Some(Duration::from_secs(9)));
    }

    #[test]
    fn mistakes_are_one_line_with_the_key_and_what_is_allowed() {
        for (text, said) in [
            ("", "guest: allowed is 1 to 8 sections [[guest]]"),
            ("[guest]", "guest = {…}: allowed is 1 to 8 sections"),
            ("x = 1\n[[guest]]", "x = 1: no such key; there is nic, guest, share, timeout"),
            ("[[guest]]", "guest[0].script: a guest needs a script or a command"),
            ("[[guest]]\nscript = '/nonexistent/x'", "guest[0].script = \"/nonexistent/x\": allowed is a file"),
            ("[[guest]]\ncommand = 'ls'", "guest[0].command = \"ls\": allowed is a list of words"),
            ("[[guest]]\ncommand = ['ls']\nendpoints = ['pf9']", "guest[0].endpoints = \"pf9\": allowed is a list"),
            ("[[guest]]\ncommand = ['ls']\nendpoints = ['pf2']", "has \"pf2\": allowed is pf0 to pf1"),
            ("[[guest]]\ncommand = ['ls']\nendpoints = ['port2']", "\"port2\" is an endpoint: allowed are ports"),
            ("[[guest]]\ncommand = ['ls']\nname = 'a b'", "guest[0].name = \"a b\": allowed is 1 to 16 letters"),
            ("[[guest]]\ncommand = ['ls']\nmem = '1T'", "guest[0].mem = \"1T\": allowed is 256M to 1024G"),
            ("[[guest]]\ncommand = ['ls']\nqueues = 9", "guest[0].queues = 9: allowed is 1 to 8"),
            ("[[guest]]\ncommand = ['ls']\n[nic]\nworkers = 99", "nic.workers = 99: allowed is 0 to 8"),
            (
                "[[guest]]\ncommand = ['ls']\nendpoints = ['port0']\n[[nic.pf]]\nwire = 'none'",
                "nic.pf[0].wire: allowed where no guest has the endpoint \"port0\"",
            ),
            (
                "[[guest]]\ncommand = ['ls']\nendpoints = ['pf0']\n[[guest]]\ncommand = ['ls']\nendpoints = ['pf0']",
                "guest[1].endpoints has \"pf0\": another guest has it already",
            ),
        ] {
            let e = read(text).unwrap_err();
            assert!(e.contains(said) && e.lines().count() == 1, "{text}: {e}");
        }
    }
}
