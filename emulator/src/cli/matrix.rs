//! `sfnic matrix`: guest tests on many kernels.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};
use sfnic_ci::report::{json as as_json, junit, markdown, table, tap};
use sfnic_ci::{Cell, Matrix, Status, Suite, suite};
use sfnic_firmware_cmds::Opcode;
use sfnic_qemu::Kit;
use sfnic_qemu::kit::{DEFAULT_LINE, KernelLine, Origin, line};

use super::output::Output;
use super::value::Kernel as Named;
use super::{Done, Failure, colours, complain, kit, print, value};
use crate::lab::plan::{Event, Kernel, Plan};
use crate::lab::{inject, turn};

/// Run guest tests on many kernels.
///
/// Each test is a guest with an unmodified driver and a device of two physical functions.
/// A test fails by a failed check, by anything that the kernel's log has to complain about,
/// by what the driver wanted and the device does not model, and by what is left in the
/// device afterwards. A skip has its reason in the table. Kernels of the kit are made when
/// they are not there yet.
///
/// Exit status: 0 if everything passed, 1 if something failed, 2 if a flag is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "\u{1b}[1;4mExamples:\u{1b}[0m
  sfnic matrix                                     every test on every stock kernel of the kit
  sfnic matrix --list                              what there is
  sfnic matrix --kernels 7.2 --tests story
  sfnic matrix --kernels 6.1,6.12 --tests 'lifecycle*,netdev' --keep logs
  sfnic matrix --kernels ~/linux,7.2 --junit results.xml
  sfnic matrix --kernels /boot/vmlinuz-6.12 --modules /lib/modules/6.12
  sfnic matrix --markdown README.md                replaces the table between its marks
  sfnic matrix --join 6.1.json,7.2.json --markdown README.md

FILE of --markdown is new, or has the marks <!-- sfnic matrix: begin --> and
<!-- sfnic matrix: end -->: what is between them is replaced.")]
pub(super) struct Args {
    /// Kernels: lines of the kit, or your own: a bzImage or the tree it was built in.
    ///
    /// `stock` is every stock line, `others` every one but the default.
    #[arg(long, value_name = "LINE|PATH,…", default_value = "stock", value_delimiter = ',', value_parser = chosen)]
    kernels: Vec<Chosen>,

    /// The modules of your own kernel: its lib/modules/RELEASE or a directory above.
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,

    /// Tests by name; `*` and `?` stand for any letters.
    #[arg(long, value_name = "GLOB,…", default_value = "*", value_parser = tests)]
    tests: Tests,

    /// List tests and kernels, and run nothing.
    #[arg(long)]
    list: bool,

    /// Run nothing: make one table of the results of earlier runs, which --json printed.
    ///
    /// Of a test that several of them have, the last one counts.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',',
          conflicts_with_all = ["kernels", "modules", "tests", "list", "jobs", "keep", "inject"])]
    join: Vec<PathBuf>,

    /// Guests at a time, instead of as many as the machine carries.
    #[arg(long, value_name = "N", value_parser = value::jobs)]
    jobs: Option<usize>,

    /// Keep what every guest said, in DIR/KERNEL/TEST.*; without it, of failures in a new
    /// directory.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,

    /// Write the results as JUnit XML: a suite a kernel, a case a check.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Write the table as Markdown, or put it between its marks in FILE.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Print the results as TAP instead of a table.
    #[arg(long, conflicts_with = "json")]
    tap: bool,

    /// Print the results as JSON instead of a table.
    #[arg(long)]
    json: bool,

    /// Give the device a fault, to see that it is noticed: `fail:COMMAND`.
    #[arg(long, value_name = "FAULT", hide = true, value_delimiter = ',', value_parser = inject::parse)]
    inject: Vec<Opcode>,

    #[command(flatten)]
    kit: kit::Place,
}

/// A kernel, or the name of several.
#[derive(Debug, Clone)]
enum Chosen {
    Stock,
    Others,
    One(Named),
}

fn chosen(text: &str) -> Result<Chosen, String> {
    match text {
        "stock" => Ok(Chosen::Stock),
        "others" => Ok(Chosen::Others),
        _ => value::kernel(text).map(Chosen::One).map_err(|allowed| format!("{allowed}; or stock, or others")),
    }
}

impl Chosen {
    fn kernels(&self) -> Vec<Named> {
        let is_stock = |name: &&str| line(name).is_some_and(|l| l.origin() == Origin::Stock);
        let lines = Kit::lines().filter(is_stock);
        let lines = lines.filter(|line| !matches!(self, Chosen::Others) || *line != DEFAULT_LINE);
        match self {
            Chosen::One(kernel) => vec![kernel.clone()],
            Chosen::Stock | Chosen::Others => lines.map(|line| Named::Line(line.to_owned())).collect(),
        }
    }
}

/// Suites that globs name.
#[derive(Debug, Clone)]
struct Tests(Vec<&'static Suite>);

fn tests(globs: &str) -> Result<Tests, String> {
    suite::matching(globs).map(Tests)
}

pub(super) fn run(args: Args) -> Done {
    if args.list {
        return list(&args);
    }
    let named: Vec<Named> = args.kernels.iter().flat_map(Chosen::kernels).collect();
    check_kernels(&named, args.modules.as_deref())?;
    let junit_file = args.junit.as_deref().map(|p| Output::new("--junit", p)).transpose()?;
    let markdown_file = args.markdown.as_deref().map(MarkdownFile::new).transpose()?;
    if !args.join.is_empty() {
        return finish(&args, &joined(&args.join)?, junit_file, markdown_file);
    }
    if let Some(dir) = &args.keep {
        std::fs::create_dir_all(dir)
            .map_err(|e| Failure::Usage(format!("--keep = {dir:?}: allowed is a directory that can be made ({e})")))?;
    }

    let plan = Plan {
        kernels: kernels(&named, &args)?,
        suites: args.tests.0.clone(),
        jobs: args.jobs.unwrap_or_else(turn::capacity),
        keep: args.keep.clone(),
        refuse: args.inject.clone(),
    };
    let total = plan.len();
    if plan.is_empty() {
        complain("no other stock kernels: nothing to run");
    }
    let matrix = match plan.run(&|event| progress(&event, total))? {
        Ok(matrix) => matrix,
        Err(signal) => {
            complain("interrupted; no results were written");
            return Ok(u8::try_from(128 + signal).unwrap_or(u8::MAX));
        }
    };
    finish(&args, &matrix, junit_file, markdown_file)
}

/// Writes and prints the results.
fn finish(args: &Args, matrix: &Matrix, junit: Option<Output>, markdown: Option<MarkdownFile>) -> Done {
    if let Some(file) = junit {
        file.write(&junit::junit(matrix))?;
    }
    if let Some(file) = markdown {
        file.write(matrix)?;
    }
    print(&match (args.json, args.tap) {
        (true, _) => as_json::json(matrix),
        (_, true) => tap::tap(matrix),
        _ => table::table(matrix, colours(&std::io::stdout())),
    })?;
    Ok(u8::from(matrix.counts().fail > 0))
}

/// The results of earlier runs.
fn joined(files: &[PathBuf]) -> Result<Matrix, Failure> {
    let mut all = Matrix::default();
    for file in files {
        let wrong = |why: String| {
            Failure::Usage(format!("--join = {file:?}: allowed is what `sfnic matrix --json` printed ({why})"))
        };
        let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
        all.join(as_json::read(&text).map_err(wrong)?);
    }
    Ok(all)
}

/// Whatever can be wrong with the names alone.
fn check_kernels(named: &[Named], modules: Option<&Path>) -> Result<(), Failure> {
    let paths: Vec<&PathBuf> = named.iter().filter_map(Named::path).collect();
    if let Some(path) = paths.iter().find(|p| !p.exists()) {
        let allowed = "a line of kernels, or the path of a bzImage or of a kernel's build tree";
        return Err(Failure::Usage(format!("--kernels = {path:?}: allowed is {allowed}")));
    }
    let mut seen: Vec<String> = vec![];
    for kernel in named {
        let name = kernel.to_string();
        if seen.contains(&name) {
            return Err(Failure::Usage(format!("--kernels: {name:?} is there twice; allowed is once")));
        }
        seen.push(name);
    }
    let Some(dir) = modules else { return Ok(()) };
    if paths.len() != 1 {
        return Err(Failure::Usage(format!("--modules = {dir:?}: allowed with the path of one kernel in --kernels")));
    }
    if !dir.is_dir() {
        return Err(Failure::Usage(format!(
            "--modules = {dir:?}: allowed is a directory: lib/modules/RELEASE or one above"
        )));
    }
    Ok(())
}

/// Makes the kernels ready. A path that is no kernel is the user's mistake; a line that cannot
/// be made fails its tests.
fn kernels(named: &[Named], args: &Args) -> Result<Vec<Kernel>, Failure> {
    let options = args.kit.options();
    // The user's own first: what is wrong with them is said before anything is made.
    let mut own = vec![];
    for path in named.iter().filter_map(Named::path) {
        own.push(Kit::ensure_own(&options, path, args.modules.as_deref())?);
    }
    let mut own = own.into_iter();
    let mut kernels: Vec<Kernel> = vec![];
    for kernel in named {
        let (name, kit) = match kernel {
            Named::Line(line) => (line.clone(), Kit::ensure(&options, line).map_err(|e| format!("{e:#}"))),
            Named::Path(path) => {
                let kit = own.next().context("a kernel went missing")?;
                let taken = kernels.iter().any(|k| k.name == kit.release());
                (if taken { path.display().to_string() } else { kit.release().to_owned() }, Ok(kit))
            }
        };
        if let Err(why) = &kit {
            complain(&format!("kernel {name} cannot be made: {why}"));
        }
        kernels.push(Kernel { name, kit });
    }
    Ok(kernels)
}

/// The table in a file of its own, or in one that has a place for it.
struct MarkdownFile {
    output: Output,
    whole: String,
}

impl MarkdownFile {
    fn new(path: &Path) -> Result<MarkdownFile, Failure> {
        let output = Output::new("--markdown", path)?;
        let whole = output.text()?;
        if !whole.trim().is_empty() {
            markdown::replace(&whole, "").map_err(|why| {
                Failure::Usage(format!("--markdown = {path:?}: allowed is a new file, or one with marks; {why}"))
            })?;
        }
        Ok(MarkdownFile { output, whole })
    }

    fn write(&self, matrix: &Matrix) -> anyhow::Result<()> {
        let table = markdown::markdown(matrix);
        let text = if self.whole.trim().is_empty() {
            table
        } else {
            markdown::replace(&self.whole, &table).map_err(anyhow::Error::msg)?
        };
        self.output.write(&text)
    }
}

/// A line for each guest that starts and ends; failures in full.
fn progress(event: &Event<'_>, total: usize) {
    let colour = colours(&std::io::stderr());
    match event {
        Event::Starts(kernel, suite) => eprintln!("{kernel} {}: {} …", suite.name, suite.about),
        Event::Ended(cell, done) => eprint!("{}", ended(cell, *done, total, colour)),
    }
}

fn ended(cell: &Cell, done: usize, total: usize, colour: bool) -> String {
    let tint = match cell.status {
        Status::Pass => "32",
        Status::Fail => "1;31",
        Status::Skip => "33",
    };
    let (on, off) = if colour { (format!("\u{1b}[{tint}m"), "\u{1b}[0m") } else { (String::new(), "") };
    let place = format!("{} {}", cell.kernel, cell.suite);
    let mut text = format!("[{done}/{total}] {place}: {on}{}{off}, {:.1} s\n", cell.summary(), cell.seconds);
    if cell.status == Status::Fail {
        text += &table::failure(cell);
    }
    text
}

fn list(args: &Args) -> Done {
    let lines: Vec<&KernelLine> = Kit::lines().filter_map(line).collect();
    let tests = &args.tests.0;
    if args.json {
        let kernel = |l: &&KernelLine| json!({ "name": l.name(), "kind": l.origin().word(), "about": l.about() });
        let test = |s: &&Suite| json!({ "name": s.name, "about": s.about });
        let kernels: Vec<Value> = lines.iter().map(kernel).collect();
        let tests: Vec<Value> = tests.iter().map(test).collect();
        print(&format!("{:#}\n", json!({ "kernels": kernels, "tests": tests })))?;
        return Ok(0);
    }
    let names = tests.iter().map(|s| s.name.as_str()).chain(lines.iter().map(|l| l.name()));
    let width = names.map(str::len).max().unwrap_or(0);
    let mut text = String::from("tests:\n");
    for suite in tests {
        text += &format!("  {:width$}  {}\n", suite.name, suite.about);
    }
    text += "kernels:\n";
    for line in lines {
        text += &format!("  {:width$}  {}: {}\n", line.name(), line.origin().word(), line.about());
    }
    print(&text)?;
    Ok(0)
}
