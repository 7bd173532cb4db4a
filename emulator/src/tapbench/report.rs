//! What the guest measured, and how it is shown.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Source;

/// A line of the guest's.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Ping(Ping),
    Stream(Stream),
    Kernel(Kernel),
}

#[derive(Debug, Deserialize)]
struct Kernel {
    nic: String,
    frames: u64,
}

#[derive(Debug, Deserialize)]
struct Ping {
    nic: String,
    #[serde(flatten)]
    rtt: Rtt,
}

/// Round trip times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rtt {
    /// Echo requests sent.
    pub sent: u32,
    /// Echo replies received.
    pub received: u32,
    /// Shortest, in milliseconds.
    pub min_ms: f64,
    /// Mean, in milliseconds.
    pub avg_ms: f64,
    /// Longest, in milliseconds.
    pub max_ms: f64,
    /// Deviation, in milliseconds.
    pub mdev_ms: f64,
}

#[derive(Debug, Deserialize)]
struct Stream {
    nic: String,
    direction: String,
    size: u32,
    bytes: u64,
    seconds: f64,
}

/// Throughput of one NIC with one size of calls, in Mbit/s of payload.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rates {
    /// Bytes that the sender hands to the kernel at once.
    pub size: u32,
    /// Median of `send_runs`.
    pub send_mbps: f64,
    /// Median of `receive_runs`.
    pub receive_mbps: f64,
    /// Guest to host, each transfer.
    pub send_runs: Vec<f64>,
    /// Host to guest, each transfer.
    pub receive_runs: Vec<f64>,
}

/// One NIC's results.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NicResult {
    /// Its name in the table.
    pub nic: String,
    /// Ping.
    pub rtt: Rtt,
    /// TCP, by size.
    pub rates: Vec<Rates>,
    /// Of an SF, the frames that the guest's kernel passed on between representors.
    pub kernel_frames: Option<u64>,
}

/// Ours over another.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// The other NIC.
    pub to: String,
    /// Bytes that the sender hands to the kernel at once.
    pub size: u32,
    /// Guest to host.
    pub send: f64,
    /// Host to guest.
    pub receive: f64,
    /// Mean round trip time.
    pub rtt: f64,
}

/// All results; the first NIC is ours.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What `uname -r` says in the guest.
    pub kernel: String,
    /// Version of QEMU.
    pub qemu: String,
    /// CPUs of the guest.
    pub cpus: u32,
    /// Who sends and receives.
    pub from: Source,
    /// Our NIC joins TCP segments.
    pub lro: bool,
    /// Capabilities of ours that differ from the profile's.
    pub caps: Vec<String>,
    /// Length of one transfer in seconds.
    pub seconds: f64,
    /// The NICs.
    pub nics: Vec<NicResult>,
    /// Ours over the others.
    pub ratios: Vec<Ratio>,
}

/// Reads the guest's lines for these NICs and sizes.
pub(super) fn read(text: &str, nics: &[&str], sizes: &[u32]) -> Result<Vec<NicResult>> {
    let empty = || sizes.iter().map(|size| Rates { size: *size, ..Rates::default() }).collect();
    let mut all: Vec<NicResult> =
        nics.iter().map(|n| NicResult { nic: (*n).to_owned(), rates: empty(), ..NicResult::default() }).collect();
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).with_context(|| format!("the guest said {line:?}"))?;
        let name = match &line {
            Line::Ping(p) => &p.nic,
            Line::Stream(s) => &s.nic,
            Line::Kernel(k) => &k.nic,
        };
        let Some(nic) = all.iter_mut().find(|r| &r.nic == name) else { bail!("the guest measured a NIC {name:?}") };
        match line {
            Line::Ping(p) => nic.rtt = p.rtt,
            Line::Kernel(k) => nic.kernel_frames = Some(k.frames),
            Line::Stream(s) => {
                let rates = nic.rates.iter_mut().find(|r| r.size == s.size);
                let rates = rates.with_context(|| format!("the guest measured size {}", s.size))?;
                let rate = s.bytes as f64 * 8.0 / 1e6 / s.seconds.max(1e-9);
                if s.direction == "send" { &mut rates.send_runs } else { &mut rates.receive_runs }.push(rate);
            }
        }
    }
    for nic in &mut all {
        for rates in &mut nic.rates {
            let missing = || format!("the guest measured nothing for {}", nic.nic);
            rates.send_mbps = median(&rates.send_runs).with_context(missing)?;
            rates.receive_mbps = median(&rates.receive_runs).with_context(missing)?;
        }
    }
    Ok(all)
}

/// The middle one, or what is between the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some((sorted[last / 2] + sorted[last.div_ceil(2)]) / 2.0)
}

/// Compares the first NIC with each of the others.
pub(super) fn ratios(nics: &[NicResult]) -> Vec<Ratio> {
    let Some((ours, others)) = nics.split_first() else { return vec![] };
    let pairs = others.iter().flat_map(|o| ours.rates.iter().zip(&o.rates).map(move |(a, b)| (o, a, b)));
    pairs
        .map(|(other, a, b)| Ratio {
            to: other.nic.clone(),
            size: a.size,
            send: a.send_mbps / b.send_mbps,
            receive: a.receive_mbps / b.receive_mbps,
            rtt: ours.rtt.avg_ms / other.rtt.avg_ms,
        })
        .collect()
}

impl Report {
    /// A table for people.
    pub fn table(&self) -> String {
        let mut t = format!(
            "guest: kernel {}, {} CPUs, QEMU {}; TCP for {} s, median{}{}\n",
            self.kernel,
            self.cpus,
            self.qemu,
            self.seconds,
            if self.from == Source::Sf { "; ours from an SF behind its eswitch" } else { "" },
            if self.lro { "; ours with LRO" } else { "" }
        );
        let several = self.nics.iter().any(|n| n.rates.len() > 1);
        for (i, size) in self.nics.first().map(|n| n.rates.iter()).into_iter().flatten().map(|r| r.size).enumerate() {
            if several {
                let _ = writeln!(t, "{size} bytes a call");
            }
            let _ = writeln!(
                t,
                "{:<12} {:>14} {:>16} {:>12}",
                "NIC on tap", "sends Mbit/s", "receives Mbit/s", "ping avg ms"
            );
            for nic in &self.nics {
                if let Some(r) = nic.rates.get(i) {
                    let _ = writeln!(
                        t,
                        "{:<12} {:>14.0} {:>16.0} {:>12.3}",
                        nic.nic, r.send_mbps, r.receive_mbps, nic.rtt.avg_ms
                    );
                }
            }
            for r in self.ratios.iter().filter(|r| r.size == size) {
                let name = format!("/ {}", r.to);
                let _ = writeln!(t, "{name:<12} {:>14.2} {:>16.2} {:>12.2}", r.send, r.receive, r.rtt);
            }
        }
        for (nic, frames) in self.nics.iter().filter_map(|n| Some((&n.nic, n.kernel_frames?))) {
            let _ = writeln!(t, "{nic}: the guest's kernel passed {frames} frames on, the device all others");
        }
        t
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"{"kind":"ping","nic":"a","sent":9,"received":9,"min_ms":0.1,"avg_ms":0.5,"max_ms":1,"mdev_ms":0}
{"kind":"ping","nic":"b","sent":9,"received":9,"min_ms":0.1,"avg_ms":0.25,"max_ms":1,"mdev_ms":0}
{"kind":"stream","nic":"a","direction":"send","size":4,"bytes":1000000,"seconds":1.0}
{"kind":"stream","nic":"a","direction":"send","size":4,"bytes":3000000,"seconds":1.0}
{"kind":"stream","nic":"a","direction":"receive","size":4,"bytes":1000000,"seconds":0.5}
{"kind":"kernel","nic":"a","frames":7}
{"kind":"stream","nic":"b","direction":"send","size":4,"bytes":1000000,"seconds":1.0}
{"kind":"stream","nic":"b","direction":"receive","size":4,"bytes":1000000,"seconds":1.0}
"#;

    #[test]
    fn rates_are_medians_and_ratios_are_ours_over_theirs() {
        let nics = read(SAID, &["a", "b"], &[4]).unwrap();
        assert_eq!((nics[0].rates[0].send_mbps, nics[0].rates[0].receive_mbps), (16.0, 16.0));
        let ratios = ratios(&nics);
        assert_eq!((ratios[0].send, ratios[0].receive, ratios[0].rtt), (2.0, 2.0, 2.0));
        let (kernel, qemu) = ("k".into(), "q".into());
        let report =
            Report { kernel, qemu, cpus: 2, lro: true, caps: vec![], from: Source::Sf, seconds: 1.0, nics, ratios };
        assert!(report.table().contains("ours from an SF") && report.table().contains("ours with LRO"));
        assert!(report.table().ends_with("a: the guest's kernel passed 7 frames on, the device all others\n"));
        assert!(
            report.table().contains("/ b                    2.00             2.00         2.00"),
            "{}",
            report.table()
        );
    }

    #[test]
    fn what_is_missing_or_strange_is_refused() {
        assert!(read(SAID, &["a", "b", "c"], &[4]).unwrap_err().to_string().contains("nothing for c"));
        assert!(read(SAID, &["a"], &[4]).is_err());
        assert!(read("hello", &["a"], &[4]).is_err());
    }
}
