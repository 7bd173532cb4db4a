//! Wires as the configuration names them. An error says what is allowed.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::datagram::Ends;
use super::interface::MAX_NAME;
use super::pcap::Replay;
use super::vhost::Meeting;
use super::{Interface, MAX_QUEUES};
use crate::board::WireKind;

/// What a port may be connected to.
pub const WIRES: &str = "\"cable\", \"loopback\", \"switch:NAME\", \"tap:NAME[,queues=N]\", \"vhost-user:PATH[,client]\", \"stream:PATH[,client]\", \
     \"unix:PATH,PEER\", \"udp:HOST:PORT,PEER:PORT\", \"pcap:FILE[,record=FILE][,speed=max][,times=N]\" or \"none\"";

/// Longest path of a socket in bytes (`sun_path` less its NUL).
const MAX_SOCKET_PATH: usize = 107;
/// Most times that a file is replayed.
const MAX_TIMES: u32 = 1_000_000;

/// A wire by its name. The error is what is allowed.
pub(crate) fn kind(text: &str) -> Result<WireKind, String> {
    Ok(match text {
        "cable" => WireKind::Cable,
        "loopback" => WireKind::Loopback,
        "none" => WireKind::None,
        _ => match text.split_once(':') {
            Some(("switch", name)) if is_switch(name) => WireKind::Switch(name.to_owned()),
            Some(("switch", _)) => return Err(format!("\"switch:\" and {SWITCH_NAME}")),
            Some(("tap", rest)) => WireKind::Tap(tap(rest)?),
            Some(("vhost-user", rest)) => WireKind::Vhost(meeting(rest)?),
            Some(("stream", rest)) => WireKind::Stream(meeting(rest)?),
            Some(("unix", rest)) => WireKind::Datagram(unix(rest)?),
            Some(("udp", rest)) => WireKind::Datagram(udp(rest)?),
            Some(("pcap", rest)) => WireKind::Replay(replay(rest)?),
            _ => return Err(WIRES.to_owned()),
        },
    })
}

/// `NAME[,queues=N]`.
pub(crate) fn tap(text: &str) -> Result<Interface, String> {
    let allowed = || {
        format!(
            "\"tap:\" and an interface of 1 to {MAX_NAME} characters without a comma, and perhaps ,queues=N (1 to {MAX_QUEUES})"
        )
    };
    let (name, queues) = match text.split_once(',') {
        None => (text, Some(1)),
        Some((name, more)) => (name, more.strip_prefix("queues=").and_then(|n| n.parse().ok())),
    };
    let queues = queues.filter(|n| (1..=MAX_QUEUES).contains(n) && is_interface(name)).ok_or_else(allowed)?;
    Ok(Interface { name: name.to_owned(), queues })
}

/// What the kernel takes as the name of an interface (`dev_valid_name`), less the percent
/// sign, with which it would choose a name itself, and the comma.
fn is_interface(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|c| c.is_ascii_graphic() && !b"/:%,".contains(&c))
}

/// What a switch may be called, in words.
pub(crate) const SWITCH_NAME: &str = "a name of 1 to 32 letters, digits, dots, dashes and underscores";

/// Whether a switch may be called so.
pub(crate) fn is_switch(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(&c))
}

fn socket(path: &str) -> Option<PathBuf> {
    let fits = (1..=MAX_SOCKET_PATH).contains(&path.len()) && !path.contains([',', '\0']);
    fits.then(|| path.into())
}

/// `PATH` or `PATH,client`.
pub(crate) fn meeting(text: &str) -> Result<Meeting, String> {
    let (path, client) = text.strip_suffix(",client").map_or((text, false), |path| (path, true));
    let path = socket(path).ok_or_else(|| {
        format!("PATH or PATH,client, with the path of a socket of 1 to {MAX_SOCKET_PATH} bytes without a comma")
    })?;
    Ok(if client { Meeting::Client(path) } else { Meeting::Server(path) })
}

/// `PATH,PEER`.
pub(crate) fn unix(text: &str) -> Result<Ends, String> {
    let ends = text.split_once(',').and_then(|(a, b)| Some((socket(a)?, socket(b)?))).filter(|(a, b)| a != b);
    let (local, peer) = ends.ok_or_else(|| {
        format!("PATH,PEER: our socket's path and the peer's, of 1 to {MAX_SOCKET_PATH} bytes without a comma")
    })?;
    Ok(Ends::Unix(local, peer))
}

/// `HOST:PORT,HOST:PORT`.
pub(crate) fn udp(text: &str) -> Result<Ends, String> {
    let address = |text: &str| text.parse::<SocketAddr>().ok().filter(|a| a.port() != 0);
    let ends = text.split_once(',').and_then(|(a, b)| Some((address(a)?, address(b)?)));
    let (local, peer) = ends
        .filter(|(a, b)| a.is_ipv4() == b.is_ipv4())
        .ok_or("IP:PORT,IP:PORT: our address and the peer's, of one family, such as 127.0.0.1:7000,127.0.0.1:7001")?;
    Ok(Ends::Udp(local, peer))
}

/// `FILE[,record=FILE][,speed=max][,times=N]`.
pub(crate) fn replay(text: &str) -> Result<Replay, String> {
    let allowed = "FILE, and perhaps ,record=FILE ,speed=max (without regard to times) ,times=N (1 to 1000000)";
    let mut parts = text.split(',');
    let file = parts.next().filter(|f| !f.is_empty()).ok_or(allowed)?;
    let mut replay = Replay { file: file.into(), record: None, at_once: false, times: 1 };
    for part in parts {
        match part.split_once('=') {
            Some(("record", path)) if !path.is_empty() && path != file => replay.record = Some(path.into()),
            Some(("speed", "max")) => replay.at_once = true,
            Some(("times", n)) => {
                replay.times = n.parse().ok().filter(|n| (1..=MAX_TIMES).contains(n)).ok_or(allowed)?;
            }
            _ => return Err(allowed.to_owned()),
        }
    }
    Ok(replay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_or_refused() {
        assert_eq!(meeting("/a"), Ok(Meeting::Server("/a".into())));
        assert_eq!(meeting("/a,client"), Ok(Meeting::Client("/a".into())));
        assert_eq!(unix("/a,/b"), Ok(Ends::Unix("/a".into(), "/b".into())));
        assert!(udp("127.0.0.1:7,[::1]:7").is_err() && udp("127.0.0.1:7,127.0.0.1:8").is_ok());
        let all = Replay { file: "f".into(), record: Some("g".into()), at_once: true, times: 3 };
        assert_eq!(replay("f,record=g,speed=max,times=3"), Ok(all));
        for bad in ["", ",client", "/a,b"] {
            assert!(meeting(bad).is_err(), "{bad}");
        }
        assert!(meeting(&"x".repeat(108)).is_err() && unix("/a,/a").is_err() && unix("/a").is_err());
        for bad in ["", "f,speed=2", "f,times=0", "f,record=f", "f,x"] {
            assert!(replay(bad).is_err(), "{bad}");
        }
    }
}
