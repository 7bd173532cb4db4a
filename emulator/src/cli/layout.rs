//! `sfnic layout`: the declared structures against kernels' headers.

use std::path::PathBuf;

use serde_json::{Value, json};
use sfnic_layout_check::{Mismatch, check};
use sfnic_qemu::Kit;
use sfnic_qemu::kit::DEFAULT_LINE;

use super::{Done, Failure, complain, kit, print, value};

/// Compare the structures, opcodes and other numbers that are declared here with the
/// headers of kernels.
///
/// The C compiler ($CC or cc) is asked where the kernel has each field. What an older
/// kernel does not know yet is listed; what it has elsewhere, in another width or with
/// another value is a mismatch, and so is an opcode that is new. Status 1 if there is one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic layout --kernel 6.1 --kernel 7.3
  sfnic layout --all --json             every line of the kit, made if it is missing
  sfnic layout --headers ~/linux        a kernel's source directory")]
pub(super) struct Args {
    /// A line of kernels (repeatable), made first if it is missing.
    #[arg(long, value_name = "LINE", default_value = DEFAULT_LINE, value_parser = value::line)]
    kernel: Vec<String>,

    /// All lines of kernels.
    #[arg(long, conflicts_with = "kernel")]
    all: bool,

    /// All lines of kernels that are made already.
    #[arg(long, conflicts_with_all = ["kernel", "all"])]
    ready: bool,

    /// A source directory instead: the one with include/linux/mlx5/mlx5_ifc.h.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kernel", "all", "ready"])]
    headers: Option<PathBuf>,

    /// What a kernel does not know is a mismatch too.
    #[arg(long)]
    strict: bool,

    /// Only count what a kernel does not know.
    #[arg(long, conflicts_with = "json")]
    brief: bool,

    /// A JSON array with one object a kernel.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: kit::Place,
}

/// What came of one kernel.
struct Compared {
    name: String,
    release: String,
    wrong: Vec<Mismatch>,
    unknown: Vec<Mismatch>,
}

pub(super) fn run(args: Args) -> Done {
    let mut compared = Vec::new();
    if let Some(dir) = &args.headers {
        if !dir.join("include/linux/mlx5/mlx5_ifc.h").is_file() {
            let allowed = "a kernel's source directory, with include/linux/mlx5/mlx5_ifc.h";
            return Err(Failure::Usage(format!("--headers = {dir:?}: allowed is {allowed}")));
        }
        compared.push(Compared::new(&dir.display().to_string(), "", dir, args.strict)?);
    }
    for kit in kits(&args)? {
        let name = kit.line().map_or("", |line| line.name());
        compared.push(Compared::new(name, kit.release(), kit.headers_dir(), args.strict)?);
    }
    let text = if args.json {
        let rows: Vec<Value> = compared.iter().map(Compared::json).collect();
        format!("{:#}\n", Value::from(rows))
    } else {
        compared.iter().map(|c| c.text(args.brief)).collect()
    };
    print(&text)?;
    Ok(u8::from(compared.iter().any(|c| !c.wrong.is_empty())))
}

/// The kernels that the flags name.
fn kits(args: &Args) -> anyhow::Result<Vec<Kit>> {
    let options = args.place.options();
    if args.headers.is_some() {
        return Ok(Vec::new());
    }
    if args.ready {
        let mut kits = Vec::new();
        for line in Kit::lines() {
            match Kit::ready(&options, line)? {
                Some(kit) => kits.push(kit),
                None => complain(&format!("kernel {line} is skipped: it is not made yet")),
            }
        }
        return Ok(kits);
    }
    let lines: Vec<&str> =
        if args.all { Kit::lines().collect() } else { args.kernel.iter().map(String::as_str).collect() };
    lines.into_iter().map(|line| Kit::ensure(&options, line)).collect()
}

impl Compared {
    fn new(name: &str, release: &str, headers: &std::path::Path, strict: bool) -> anyhow::Result<Compared> {
        let found = check(headers)?;
        let (unknown, wrong) = found.into_iter().partition(|m| m.is_unknown() && !strict);
        Ok(Compared { name: name.to_string(), release: release.to_string(), wrong, unknown })
    }

    fn text(&self, brief: bool) -> String {
        let Compared { name, release, wrong, unknown } = self;
        let space = if release.is_empty() { "" } else { " " };
        let mut text = format!("{name}{space}{release}: {} wrong, {} unknown to it\n", wrong.len(), unknown.len());
        let listed = if brief { &[] } else { &unknown[..] };
        for (word, list) in [("wrong  ", &wrong[..]), ("unknown", listed)] {
            for mismatch in list {
                text += &format!("  {word} {mismatch}\n");
            }
        }
        text
    }

    fn json(&self) -> Value {
        let texts = |list: &[Mismatch]| -> Vec<String> { list.iter().map(Mismatch::to_string).collect() };
        json!({
            "kernel": self.name,
            "release": self.release,
            "wrong": texts(&self.wrong),
            "unknown": texts(&self.unknown),
        })
    }
}
