//! Frames a second: what benchmarks of them are asked, and what they tell.

use std::fmt;

/// Of what, how long, and in which form.
#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// Bytes of a frame, without its check sequence; several separated by commas.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "64,1500", value_parser = clap::value_parser!(u32).range(60..=9000))]
    pub size: Vec<u32>,
    /// How long to measure each.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Measure so many frames of each worker instead, however long that takes: for profilers.
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    pub frames: Option<u64>,
    /// Print JSON instead of a table: an object for one measurement, a list for several.
    #[arg(long)]
    pub json: bool,
}

/// What one measurement came to.
#[derive(Debug, serde::Serialize)]
pub(super) struct Speed {
    /// Million frames a second of the device's time, all workers together.
    pub mpps: f64,
    /// Gigabits of frames a second.
    pub gbps: f64,
    /// Nanoseconds of the device alone a frame.
    pub device_ns: f64,
    /// The same in the median of all batches, which other work of the machine
    /// disturbs less.
    pub median_ns: f64,
    /// Million frames a second where the drivers' work counts too.
    pub with_driver_mpps: f64,
}

/// The head of a table's columns for a [`Speed`].
pub(super) const COLUMNS: &str = "    Mpps   Gbit/s  device ns  median ns  with driver";

impl Speed {
    /// So many million frames a second, each of `size` bytes.
    pub(super) fn of(size: u32, mpps: f64, device_ns: f64, batches: Vec<f64>, with_driver_mpps: f64) -> Self {
        let gbps = mpps * 8.0 * f64::from(size) / 1e3;
        Self { mpps, gbps, device_ns, median_ns: super::lane::median(batches), with_driver_mpps }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mpps, gbps, device_ns, median_ns, with_driver_mpps } = self;
        write!(f, "{mpps:>8.2} {gbps:>8.2} {device_ns:>10.0} {median_ns:>10.0} {with_driver_mpps:>12.2}")
    }
}
