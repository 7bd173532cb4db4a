//! The lines of kernels: `ci/kernels.toml`, read and checked.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::LazyLock;

use serde::Deserialize;

/// The declaration of all lines.
const TEXT: &str = include_str!("../../../ci/kernels.toml");

/// Options of whole kernels, by the names that a line calls them.
const CONFIGS: &[(&str, &str)] = &[
    ("full.config", include_str!("../../../ci/full.config")),
    ("debug.config", include_str!("../../../ci/debug.config")),
];

/// Programs that every build runs besides compiler and headers.
const BUILD_PROGRAMS: [&str; 8] = ["make", "dash", "coreutils", "sed", "grep", "mawk", "findutils", "diffutils"];

/// How a kernel comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The distribution's image and modules, mlx5 rebuilt.
    Stock,
    /// All of it made from the source, with options of ours.
    Built,
}

/// Built in or a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Value {
    #[serde(rename = "y")]
    BuiltIn,
    #[serde(rename = "m")]
    Module,
}

/// One line of kernels and where it comes from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KernelLine {
    name: String,
    kind: Origin,
    about: String,
    #[serde(default = "one")]
    timeout_factor: f64,
    pub(crate) suites: Vec<String>,
    pub(crate) source: String,
    pub(crate) compiler: String,
    builders: Vec<String>,
    // Of a stock line.
    #[serde(default)]
    pub(crate) images: Vec<String>,
    symbols: Option<BTreeMap<String, Value>>,
    rebuilt: Option<Vec<String>>,
    added: Option<Vec<String>>,
    // Of a built line.
    #[serde(default)]
    pub(crate) base: String,
    #[serde(default)]
    configs: Vec<String>,
    #[serde(default)]
    pub(crate) selftests: Vec<String>,
}

fn one() -> f64 {
    1.0
}

/// What stock lines have unless they say otherwise.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stock {
    symbols: BTreeMap<String, Value>,
    rebuilt: Vec<String>,
    added: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    stock: Stock,
    kernel: Vec<KernelLine>,
}

impl KernelLine {
    /// What `--kernel` takes: `7.2`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it comes about.
    pub fn origin(&self) -> Origin {
        self.kind
    }

    /// What it is good for, for people.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// How much longer than on other kernels a guest may take; at least 1.
    pub fn timeout_factor(&self) -> f64 {
        self.timeout_factor
    }

    /// Everything that goes into the private build tree, `release` in place.
    pub(crate) fn builder_packages(&self, release: &str) -> Vec<String> {
        let fixed = BUILD_PROGRAMS.iter().map(|p| p.to_string());
        self.builders.iter().map(|p| p.replace("{}", release)).chain(fixed).collect()
    }

    /// The packages that all have one version: image, modules, headers.
    pub(crate) fn packages_of_one_version(&self) -> impl Iterator<Item = &String> {
        self.images.iter().chain(self.builders.first().filter(|p| p.contains("{}")))
    }

    /// Symbols of the rebuilt modules.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = (&str, Value)> {
        self.symbols.iter().flatten().map(|(name, value)| (name.as_str(), *value))
    }

    /// Directories of modules that are rebuilt together.
    pub(crate) fn rebuilt(&self) -> &[String] {
        self.rebuilt.as_deref().unwrap_or_default()
    }

    /// Single files that become modules beside them.
    pub(crate) fn added(&self) -> &[String] {
        self.added.as_deref().unwrap_or_default()
    }

    /// The options of a whole kernel, one file after the other.
    pub(crate) fn options(&self) -> String {
        let text = |name: &String| CONFIGS.iter().find(|(known, _)| known == name).map_or("", |(_, text)| text);
        self.configs.iter().map(text).collect::<Vec<_>>().join("\n")
    }

    /// All that decides how its modules come out, as text for a stamp.
    pub(crate) fn inputs(&self) -> String {
        let KernelLine { name, suites, source, compiler, builders, symbols, rebuilt, added, base, selftests, .. } =
            self;
        let parts: [&dyn Debug; 10] =
            [name, suites, source, compiler, builders, symbols, rebuilt, added, base, selftests];
        format!("{parts:?}\n{}", self.options())
    }

    fn check(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("kernel {:?}: {what}", self.name));
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if self.name.is_empty() || self.name.starts_with(['.', '-']) || !self.name.chars().all(plain) {
            return wrong("the name is a word of letters, digits, '.', '-' and '_'");
        }
        if !self.timeout_factor.is_finite() || self.timeout_factor < 1.0 {
            return wrong("timeout-factor: allowed is a number from 1 on");
        }
        for (key, list) in [("suites", &self.suites), ("builders", &self.builders)] {
            if list.is_empty() {
                return wrong(&format!("{key}: at least one is needed"));
            }
        }
        let of_built = [("base", self.base.is_empty()), ("configs", self.configs.is_empty())];
        let of_stock = [("images", self.images.is_empty())];
        let (needed, other): (&[_], &[_]) = match self.kind {
            Origin::Stock => (&of_stock, &of_built),
            Origin::Built => (&of_built, &of_stock),
        };
        if let Some((key, _)) = needed.iter().find(|(_, empty)| *empty) {
            return wrong(&format!("{key}: needed, as it is a {} line", self.kind.word()));
        }
        let mut foreign = other.iter().filter(|(_, empty)| !empty).map(|(key, _)| *key).collect::<Vec<_>>();
        match self.kind {
            Origin::Stock if !self.selftests.is_empty() => foreign.push("selftests"),
            Origin::Built if self.symbols.is_some() => foreign.push("symbols"),
            Origin::Built if self.rebuilt.is_some() => foreign.push("rebuilt"),
            Origin::Built if self.added.is_some() => foreign.push("added"),
            _ => {}
        }
        if let Some(key) = foreign.first() {
            return wrong(&format!("{key}: not for a {} line", self.kind.word()));
        }
        if self.kind == Origin::Stock && !self.packages_of_one_version().all(|p| p.contains("{}")) {
            return wrong("images: {} has to stand for the release");
        }
        if self.kind == Origin::Stock && !self.builders.first().is_some_and(|p| p.contains("{}")) {
            return wrong("builders: the first one is the package of headers, with {} for the release");
        }
        match self.configs.iter().find(|name| !CONFIGS.iter().any(|(known, _)| known == name)) {
            Some(name) => {
                let known: Vec<&str> = CONFIGS.iter().map(|(known, _)| *known).collect();
                wrong(&format!("configs: there is no {name:?}; allowed is {}", known.join(", ")))
            }
            None => Ok(()),
        }
    }
}

impl Origin {
    /// As the file spells it.
    pub fn word(self) -> &'static str {
        match self {
            Origin::Stock => "stock",
            Origin::Built => "built",
        }
    }
}

/// Reads a declaration of lines.
fn parse(text: &str) -> Result<Vec<KernelLine>, String> {
    let file: File = toml::from_str(text).map_err(|e| {
        let line = e.span().map(|span| text[..span.start].lines().count().max(1));
        let at = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("{at}{}", e.message().replace('\n', " "))
    })?;
    let mut lines: Vec<KernelLine> = Vec::new();
    for mut line in file.kernel {
        line.check()?;
        if lines.iter().any(|other| other.name == line.name) {
            return Err(format!("kernel {:?}: declared twice", line.name));
        }
        if line.kind == Origin::Stock {
            line.symbols.get_or_insert_with(|| file.stock.symbols.clone());
            line.rebuilt.get_or_insert_with(|| file.stock.rebuilt.clone());
            line.added.get_or_insert_with(|| file.stock.added.clone());
        }
        lines.push(line);
    }
    Ok(lines)
}

/// All lines that the kit can make, in the order of the file.
pub(crate) fn all() -> &'static [KernelLine] {
    static LINES: LazyLock<Vec<KernelLine>> = LazyLock::new(|| match parse(TEXT) {
        Ok(lines) => lines,
        // The file is part of this program; a test reads it.
        Err(e) => panic!("ci/kernels.toml: {e}"),
    });
    &LINES
}

/// The line of that name.
pub fn line(name: &str) -> Option<&'static KernelLine> {
    all().iter().find(|l| l.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::DEFAULT_LINE;

    #[test]
    fn the_lines_are_well_declared() {
        let names: Vec<&str> = all().iter().map(KernelLine::name).collect();
        assert_eq!(names, ["6.1", "6.12", "7.2", "7.3", "full-7.2", "debug-7.2"]);
        assert!(line(DEFAULT_LINE).is_some_and(|l| l.origin() == Origin::Stock && l.timeout_factor() == 1.0));
        assert!(line("debug-7.2").is_some_and(|l| l.timeout_factor() > 1.0 && l.options().contains("CONFIG_KASAN=y")));
        for line in all() {
            let sf = line.symbols().any(|(name, _)| name == "MLX5_SF") || line.options().contains("CONFIG_MLX5_SF=y");
            assert!(sf, "{}", line.name);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let said = |from: &str, to: &str| {
            assert!(TEXT.contains(from), "{from}");
            parse(&TEXT.replacen(from, to, 1)).unwrap_err()
        };
        let e = said("suites = [\"bookworm\"]", "suits = [\"bookworm\"]");
        assert!(e.starts_with("line ") && e.contains("unknown field `suits`") && e.contains("`suites`"), "{e}");
        assert!(said("kind = \"stock\"", "kind = \"stick\"").contains("unknown variant `stick`"));
        assert!(said("MLX5_SF = \"y\"", "MLX5_SF = \"x\"").contains("unknown variant `x`"));
        assert_eq!(said("name = \"6.12\"", "name = \"6.1\""), "kernel \"6.1\": declared twice");
        assert_eq!(
            said("timeout-factor = 4.0", "timeout-factor = 0.5"),
            "kernel \"debug-7.2\": timeout-factor: allowed is a number from 1 on"
        );
        assert_eq!(
            said("images = [\"linux-image-{}-unsigned\"]", "base = \"x\""),
            "kernel \"6.1\": images: needed, as it is a stock line"
        );
        assert_eq!(
            said("base = \"x86_64_defconfig\"", "base = \"x\"\nadded = []"),
            "kernel \"full-7.2\": added: not for a built line"
        );
        assert_eq!(
            said("[\"full.config\"]", "[\"fast.config\"]"),
            "kernel \"full-7.2\": configs: there is no \"fast.config\"; allowed is full.config, debug.config"
        );
        assert!(said("suites = [\"bookworm\"]", "suites = []").contains("suites: at least one"));
        assert!(parse("kernel = 7").unwrap_err().starts_with("line 1: "));
    }
}
