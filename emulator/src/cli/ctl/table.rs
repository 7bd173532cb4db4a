//! Lists as tables for people: a line an entry, columns as wide as they need to be.

/// Lays out rows below their heads; numbers are on the right.
pub(in crate::cli) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "nothing\n".to_owned();
    }
    let cell = |row: &[String], i: usize| row.get(i).cloned().unwrap_or_default();
    let width = |i: usize| rows.iter().map(|r| cell(r, i).chars().count()).max().unwrap_or(0);
    let number = |i: usize| rows.iter().all(|r| cell(r, i).parse::<f64>().is_ok() || cell(r, i).is_empty());
    let columns: Vec<(usize, bool)> =
        heads.iter().enumerate().map(|(i, head)| (width(i).max(head.chars().count()), number(i))).collect();
    let line = |cells: &[String]| {
        let mut text = String::new();
        for (i, (width, right)) in columns.iter().enumerate() {
            let cell = cell(cells, i);
            text += &if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            text += "  ";
        }
        format!("{}\n", text.trim_end())
    };
    let heads: Vec<String> = heads.iter().map(|h| (*h).to_owned()).collect();
    std::iter::once(line(&heads)).chain(rows.iter().map(|r| line(r))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["pf0", "7", ""], ["pf0sf88", "1234", "x"]].map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(table(&["PORT", "N", "Y"], &rows), "PORT        N  Y\npf0         7\npf0sf88  1234  x\n");
        assert_eq!(table(&["A"], &[]), "nothing\n");
    }
}
