//! Asks the C compiler: one program holds all questions, what it prints are
//! the answers. A question that does not compile (no such structure, field or
//! constant in this kernel) has no answer; the others are asked again
//! without it.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Files that stand in for the parts of the kernel that its mlx5 headers use.
const SUPPORT: &[(&str, &str)] = &[
    ("ask.h", include_str!("../c/ask.h")),
    ("linux/types.h", include_str!("../c/linux/types.h")),
    ("linux/bitfield.h", include_str!("../c/linux/bitfield.h")),
    ("linux/refcount.h", include_str!("../c/linux/refcount.h")),
    ("linux/mlx5/driver.h", include_str!("../c/linux/mlx5/driver.h")),
    ("rdma/ib_verbs.h", include_str!("../c/rdma/ib_verbs.h")),
];

/// Where a kernel tree has headers that only the driver itself includes.
const PRIVATE_HEADERS: &[&str] = &["drivers/net/ethernet/mellanox/mlx5/core/sf"];

/// What errors in a question are reported under; the line is the question.
const QUESTIONS: &str = "question";

/// Rounds of leaving out what does not compile; one compiler reports all
/// errors at once, another twenty at a time.
const ROUNDS: usize = 50;

/// A question that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id(usize);

#[derive(Debug)]
enum Question {
    Constant(String),
    Bits(String),
}

/// Questions to be asked together.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    questions: Vec<Question>,
}

/// What the compiler said.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    constants: HashMap<usize, u64>,
    bits: HashMap<usize, Vec<u32>>,
}

impl Answers {
    /// The value of a constant, if the kernel has it.
    pub(crate) fn constant(&self, id: Id) -> Option<u64> {
        self.constants.get(&id.0).copied()
    }

    /// The bits that statements set, in order, if they compile.
    pub(crate) fn bits(&self, id: Id) -> Option<&[u32]> {
        self.bits.get(&id.0).map(Vec::as_slice)
    }
}

impl Sheet {
    /// Asks for the value of a constant expression.
    pub(crate) fn constant(&mut self, expression: String) -> Id {
        self.put(Question::Constant(expression))
    }

    /// Asks which bits of `bits` the statements set.
    pub(crate) fn bits(&mut self, statements: String) -> Id {
        self.put(Question::Bits(statements))
    }

    fn put(&mut self, question: Question) -> Id {
        self.questions.push(question);
        Id(self.questions.len() - 1)
    }

    /// Compiles and runs the questions against the headers below
    /// `headers_dir/include`.
    ///
    /// # Errors
    /// There is no compiler, no header, or the headers do not compile.
    pub(crate) fn ask(&self, headers_dir: &Path) -> Result<Answers> {
        let include = headers_dir.join("include");
        let header = include.join("linux/mlx5/mlx5_ifc.h");
        ensure!(header.exists(), "{} is missing: is this a kernel's source directory?", header.display());
        let dir = tempfile::tempdir().context("cannot create a directory for the questions")?;
        for (name, text) in SUPPORT {
            let path = dir.path().join("support").join(name);
            fs::create_dir_all(path.parent().unwrap_or(dir.path()))?;
            fs::write(&path, text)?;
        }
        let (source, program) = (dir.path().join("questions.c"), dir.path().join("questions"));
        let mut unanswered = HashSet::new();
        for _ in 0..ROUNDS {
            fs::write(&source, self.text(&unanswered))?;
            let mut cc = compiler();
            cc.arg("-I").arg(dir.path().join("support")).arg("-I").arg(&include);
            for private in PRIVATE_HEADERS {
                cc.arg("-I").arg(headers_dir.join(private));
            }
            let out = cc.arg("-o").arg(&program).arg(&source).output().with_context(no_compiler)?;
            if out.status.success() {
                return answers(&program);
            }
            let errors = String::from_utf8_lossy(&out.stderr);
            let before = unanswered.len();
            unanswered.extend(failed(&errors).with_context(|| format!("the compiler says:\n{}", head(&errors)))?);
            ensure!(unanswered.len() > before, "the headers do not compile:\n{}", head(&errors));
        }
        bail!("still errors after leaving out {} questions", unanswered.len())
    }

    fn text(&self, without: &HashSet<usize>) -> String {
        let mut constants = String::new();
        let mut statements = String::new();
        let questions = self.questions.iter().enumerate().filter(|(id, _)| !without.contains(id));
        for (id, question) in questions {
            let line = id + 1;
            let _ = match question {
                Question::Constant(c) => {
                    writeln!(constants, "#line {line} \"{QUESTIONS}\"\n{{ {id}, (unsigned long long)({c}) }},")
                }
                Question::Bits(c) => writeln!(statements, "#line {line} \"{QUESTIONS}\"\n{{ {c}; show_bits({id}); }}"),
            };
        }
        format!(
            "#include \"ask.h\"\n\
             static const struct constant constants[] = {{\n{constants}{{ -1u, 0 }} }};\n\
             int main(void)\n{{\n\
             for (const struct constant *c = constants; c->id != -1u; c++)\n\
             printf(\"constant %u %llu\\n\", c->id, c->value);\n\
             {statements}return 0;\n}}\n"
        )
    }
}

/// `$CC` or `cc`. Without `-w`, which would let a function pass that no header declares.
fn compiler() -> Command {
    let mut cc = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    cc.env("LC_ALL", "C").args(["-std=gnu11", "-Werror=implicit-function-declaration"]);
    cc
}

fn no_compiler() -> String {
    "no C compiler: install gcc or clang, or name one in CC".to_string()
}

/// The questions that errors are about. An error elsewhere is the headers' or
/// ours.
fn failed(errors: &str) -> Result<HashSet<usize>> {
    let mut ids = HashSet::new();
    for line in errors.lines().filter(|l| l.contains(" error: ")) {
        let place = line.strip_prefix(QUESTIONS).and_then(|rest| rest.strip_prefix(':'));
        let number = place.and_then(|rest| rest.split(':').next()).and_then(|n| n.parse::<usize>().ok());
        let Some(number) = number.filter(|n| *n > 0) else { bail!("an error outside the questions: {line}") };
        ids.insert(number - 1);
    }
    Ok(ids)
}

fn head(text: &str) -> String {
    text.lines().take(20).collect::<Vec<_>>().join("\n")
}

fn answers(program: &Path) -> Result<Answers> {
    let out = Command::new(program).output().with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(out.status.success(), "the questions ended with {}", out.status);
    let mut answers = Answers::default();
    for line in String::from_utf8(out.stdout)?.lines() {
        let mut words = line.split(' ');
        let (kind, id) = (words.next(), words.next().unwrap_or_default().parse()?);
        match kind {
            Some("constant") => {
                answers.constants.insert(id, words.next().unwrap_or_default().parse()?);
            }
            Some("bits") => {
                answers.bits.insert(id, words.map(str::parse).collect::<Result<_, _>>()?);
            }
            _ => bail!("not an answer: {line}"),
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_their_questions() -> Result<()> {
        let errors = "In file included from x.c:1:\n\
            question:3:7: error: invalid use of undefined type 'struct a'\n\
            question:8:11: error: 'struct b' has no member named 'c'\n\
            question:8:11: note: something\n";
        assert_eq!(failed(errors)?, HashSet::from([2, 7]));
        assert!(failed("a.h:3:7: error: expected ';'\n").is_err());
        Ok(())
    }
}
