//! A running device: what `run`, `vm` and `demo` share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::json;
use sfnic_device_model::fabric::port::Far;
use sfnic_device_model::nic::Nic;
use tempfile::TempDir;

use super::{Failure, complain, value};
use crate::board::{Board, DoorbellMode};
use crate::capture::Spec;
use crate::config::{self, Config, SliceConfig};
use crate::control::server::{Server, Tcp};
use crate::control::{TOKEN_VARIABLE, Target, dashboard, place};
use crate::inspect;
use crate::trace::file::{Card, Header};
use crate::trace::record::Recording;

/// What the user wants to see of a device.
#[derive(Debug, clap::Args)]
pub(super) struct Watch {
    /// Fail (status 1 instead of 0) if the guest used anything that is not modelled.
    #[arg(long)]
    pub(super) strict: bool,

    /// Explain frames on stderr: every table, rule and decision on their way.
    ///
    /// The words of FILTER are looked for in the one-line summary with which an
    /// explanation begins; "" is every frame.
    #[arg(long, value_name = "FILTER")]
    pub(super) explain: Option<String>,

    /// Write the frames that pass vports and ports to a file for Wireshark (pcapng).
    ///
    /// `FILE,port=uplink0,port=pf0sf88,snap=96` keeps so many bytes of the frames of these
    /// only: uplinkN is a physical port, pfN a physical function, pfNsfM its SF number M.
    #[arg(long, value_name = "FILE[,port=NAME]…", value_parser = value::capture)]
    pub(super) capture: Vec<Spec>,

    /// How many frames are explained.
    #[arg(long, value_name = "N", default_value = "10", requires = "explain", value_parser = value::count)]
    pub(super) explain_count: u32,

    /// Record every command, event, doorbell and access, for `sfnic trace`.
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Option<PathBuf>,
}

/// What changes the configured device.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Variant {
    /// The capabilities: a built-in profile, or the path of one (`sfnic profile import`).
    #[arg(long, value_name = "NAME|FILE")]
    profile: Option<String>,

    /// A capability that differs from the profile's, of all functions; may be given several
    /// times. NAME alone does where one group only has it.
    ///
    /// The names are the kernel's (struct mlx5_ifc_GROUP_bits). What the model does not do it
    /// does not learn this way; it is for switching off, and for what is off by default:
    /// striding_rq=1 are receive queues whose buffers take many frames, and with them LRO.
    #[arg(long, value_name = "[GROUP.]NAME=VALUE")]
    cap: Vec<String>,

    /// How a driver's doorbells come: trap (QEMU tells of each) or poll (drivers write to
    /// memory that workers look at: less work for the guest, and some for us while nothing
    /// happens).
    #[arg(long, value_name = "trap|poll")]
    doorbells: Option<DoorbellMode>,

    /// Fill bits of answers and events that mean nothing with noise, to find drivers that
    /// read them; the same seed is the same noise.
    #[arg(long, value_name = "SEED")]
    noise: Option<u64>,
}

impl Variant {
    /// Changes the configuration.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), Failure> {
        if let Some(name) = &self.profile {
            config.profile = super::trace::named_profile(name)?;
        }
        for cap in &self.cap {
            config.profile.set(cap).map_err(|why| Failure::Usage(format!("--cap: {why}")))?;
        }
        if let Some(mode) = self.doorbells {
            let mode = config::doorbells_of(mode, config.workers > 0);
            config.doorbells = mode.map_err(|why| Failure::Usage(format!("--doorbells {why}")))?;
        }
        config.noise = self.noise.or(config.noise);
        Ok(())
    }
}

impl Watch {
    /// Starts the explanations that were asked for.
    fn begin(&self, nic: &Nic) {
        if let Some(filter) = &self.explain {
            nic.explainer.start(filter, self.explain_count, Arc::new(|text: &str| eprintln!("{text}")));
        }
    }

    /// Refuses a trace that cannot be written.
    pub(super) fn check(&self) -> Result<(), Failure> {
        Later::create("--trace", self.trace.clone()).map(|_| ())
    }

    /// Starts the recording that was asked for.
    fn record(&self, nic: &Nic) -> Result<Option<Recording>> {
        let Some(path) = &self.trace else { return Ok(None) };
        let cards = nic.cards.iter().map(|c| Card {
            mac: c.config.mac,
            vectors: c.config.vectors,
            max_sfs: c.config.max_sfs,
            log_sf_window: c.config.log_sf_window,
            sf_base: c.config.sf_base,
            wire: match c.config.far {
                Far::None => "none",
                Far::Loopback => "loopback",
                Far::Port(_) => "cable",
                Far::Outside(_) => "outside",
            }
            .to_owned(),
        });
        let header =
            Header { source: "device".to_owned(), profile: Some(nic.profile.name.clone()), cards: cards.collect() };
        let recording =
            Recording::create(path, &header).with_context(|| format!("--trace: cannot write {}", path.display()))?;
        nic.record(recording.recorder());
        Ok(Some(recording))
    }

    /// Prints what is not modelled; the status that follows.
    pub(super) fn report(&self, nic: &Nic, status: u8) -> u8 {
        let list = nic.unmodelled.list();
        if list.is_empty() {
            return status;
        }
        let head = "the guest used what is not modelled:";
        let rows: Vec<String> = list.iter().map(|(access, count)| format!("  {count:>8} × {access}")).collect();
        complain(&format!("{head}\n{}", rows.join("\n")));
        if self.strict && status == 0 {
            complain("--strict: the status is therefore 1 instead of 0");
            return 1;
        }
        status
    }
}

/// A device on its sockets.
pub(super) struct Device {
    board: Board,
    nic: Arc<Nic>,
    sockets: Vec<PathBuf>,
    slices: Vec<SliceConfig>,
    recording: Option<Recording>,
    /// Where the sockets are, if they are private.
    dir: Option<TempDir>,
    control: Option<Server>,
}

/// Where a device is to be talked to.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Control {
    /// The control socket, for `sfnic ctl --control`; by default one in the usual place.
    #[arg(long = "control", value_name = "PATH")]
    path: Option<PathBuf>,

    /// Offer the control plane and the dashboard (a page for a browser) on TCP too, to who
    /// knows the token: that in SFNIC_TOKEN, or one that is made and printed, with the
    /// page's link. Port 0 is one that is free.
    #[arg(long = "control-tcp", value_name = "IP:PORT", value_parser = value::address)]
    tcp: Option<SocketAddr>,

    /// Whether the device is of no use without it.
    #[arg(skip)]
    required: bool,
}

impl Control {
    /// For a device that is of no use without it.
    pub(super) fn required(self) -> Control {
        Control { required: true, ..self }
    }

    /// The port on TCP, if one is wanted, and whether its token was made here.
    fn tcp(&self) -> Result<Option<(Tcp, bool)>> {
        let Some(address) = self.tcp else { return Ok(None) };
        let (token, made) = match std::env::var(TOKEN_VARIABLE) {
            Ok(token) if !token.is_empty() => (token, false),
            _ => {
                let mut bytes = [0; 16];
                let mut random = std::fs::File::open("/dev/urandom").context("no random numbers")?;
                std::io::Read::read_exact(&mut random, &mut bytes).context("no random numbers")?;
                let token: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
                eprintln!("sfnic: {TOKEN_VARIABLE}={token}");
                (token, true)
            }
        };
        Ok(Some((Tcp { address, token }, made)))
    }

    fn serve(&self, target: Target) -> Result<Option<Server>> {
        let (tcp, made) = self.tcp()?.map_or((None, false), |(tcp, made)| (Some(tcp), made));
        let place = self.path.clone().map_or_else(place::own, Ok);
        match place.and_then(|path| Server::start(target, &path, tcp.as_ref())) {
            Ok(server) => {
                if let Some(address) = server.tcp() {
                    eprintln!("sfnic: control: http://{address}");
                    // A token of the user's own is not for the log.
                    let token = tcp.as_ref().map(|t| t.token.as_str()).filter(|_| made);
                    eprintln!("sfnic: dashboard: {}", dashboard::link(address, token));
                }
                Ok(Some(server))
            }
            Err(e) if self.required || self.path.is_some() || tcp.is_some() => {
                Err(e.context("cannot offer the control socket"))
            }
            Err(e) => {
                tracing::info!("no control socket: {e:#}");
                Ok(None)
            }
        }
    }
}

impl Device {
    /// Starts a device on these sockets, one a physical function.
    pub(super) fn start(config: Config, sockets: Vec<PathBuf>, control: &Control, watch: &Watch) -> Result<Device> {
        let (handle, workers, slices) = (config.handle.clone(), config.workers, config.slices.clone());
        let configured = config.captures.clone();
        let board = Board::new(config.into_board()).context("cannot build the device")?;
        let nic = board.nic.clone();
        watch.begin(&nic);
        let recording = watch.record(&nic)?;
        let asked = watch.capture.iter().map(|spec| ("--capture", spec));
        for (who, spec) in configured.iter().map(|spec| ("capture", spec)).chain(asked) {
            let file = spec.file.display();
            board.captures.start(spec.clone()).with_context(|| format!("{who}: cannot write {file}"))?;
        }
        board.serve(&sockets).context("cannot offer the device")?;
        let control = control.serve(Target::of(&board, &handle, workers))?;
        Ok(Device { board, nic, sockets, slices, recording, dir: None, control })
    }

    /// Starts a device on sockets that nobody else has and that go with it.
    pub(super) fn start_private(config: Config, control: &Control, watch: &Watch) -> Result<Device> {
        let dir = private_dir()?;
        let sockets = (0..config.pfs.len()).map(|i| dir.path().join(socket_name(i))).collect();
        let device = Device::start(config, sockets, control, watch)?;
        Ok(Device { dir: Some(dir), ..device })
    }

    /// The sockets, by number of the physical function.
    pub(super) fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// The slices that are there from the beginning.
    pub(super) fn slices(&self) -> &[SliceConfig] {
        &self.slices
    }

    /// Ends it: the guests are disconnected and nothing runs any more. What the device
    /// counted stays.
    pub(super) fn stop(self) -> Arc<Nic> {
        drop(self.control);
        drop(self.dir); // first: a signal from here on leaves nothing behind
        let board = self.board;
        board.halt();
        if let Some(outcome) = self.recording.map(Recording::finish) {
            if let Some(e) = outcome.error {
                complain(&format!("the trace is incomplete, {} records are missing: {e}", outcome.lost));
            } else if outcome.lost > 0 {
                complain(&format!("{} records of the trace were lost: the disk was too slow", outcome.lost));
            }
        }
        for done in board.captures.stop_all() {
            let ports = if done.ports.is_empty() { "no port".to_owned() } else { done.ports.join(", ") };
            eprintln!("sfnic: {}: {} frames of {ports}", done.file.display(), done.frames);
        }
        for (port, link) in &board.wires {
            tracing::info!("port {port}: {:?}", link.counters());
        }
        self.nic
    }
}

/// The name of a physical function's socket in a directory.
pub(super) fn socket_name(index: usize) -> String {
    format!("pf{index}.sock")
}

/// A new directory for this user alone. A socket's path has at most 107 bytes.
pub(super) fn private_dir() -> Result<TempDir> {
    let short = |dir: &PathBuf| dir.as_os_str().len() <= 60;
    let places = [place::runtime_dir(), Some(std::env::temp_dir()), Some("/tmp".into())];
    let mut made = Err(std::io::ErrorKind::NotFound.into());
    for place in places.into_iter().flatten().filter(short) {
        made = tempfile::Builder::new().prefix("sfnic-").tempdir_in(place);
        if made.is_ok() {
            break;
        }
    }
    made.context("cannot create a directory for the sockets")
}

/// The physical functions and SFs, their objects, commands and frames, as data.
pub(super) fn dump(nic: &Nic) -> serde_json::Value {
    let ports: Vec<serde_json::Value> = nic
        .cards
        .iter()
        .map(|card| {
            let (rx, tx) = (&card.port.rx, &card.port.tx);
            json!({
                "rx_packets": rx.packets(), "rx_bytes": rx.octets(), "rx_discards": card.port.rx_discards.get(),
                "tx_packets": tx.packets(), "tx_bytes": tx.octets(), "tx_discards": card.port.tx_discards.get(),
            })
        })
        .collect();
    json!({
        "objects": nic.object_counts(), "functions": inspect::functions(nic, inspect::Which::default()), "ports": ports,
        "unmodelled": inspect::unmodelled(nic),
    })
}

/// A file to write at the end, created now so that a wrong path is known before the work.
#[derive(Debug)]
pub(super) struct Later {
    flag: &'static str,
    path: PathBuf,
}

impl Later {
    pub(super) fn create(flag: &'static str, path: Option<PathBuf>) -> Result<Option<Later>, Failure> {
        let Some(path) = path else { return Ok(None) };
        match std::fs::File::create(&path) {
            Ok(_) => Ok(Some(Later { flag, path })),
            Err(e) => Err(Failure::Usage(format!("{flag} = {:?}: allowed is a file that can be written ({e})", path))),
        }
    }

    pub(super) fn write(&self, text: &str) -> Result<()> {
        std::fs::write(&self.path, text).with_context(|| format!("{}: cannot write {}", self.flag, self.path.display()))
    }
}
