//! Text for a terminal of 80 columns: tables, and paragraphs that are wrapped.

use std::fmt::Write as _;

/// The width that printed lines keep to, in characters.
pub(super) const WIDTH: usize = 80;
/// The space between two columns, in characters.
const GAP: usize = 2;
/// The space between two tables that stand side by side, in characters.
const GUTTER: usize = 4;
/// The narrowest that a column of text becomes before the table gives up the width, in characters.
const TEXT_MIN: usize = 12;

/// The side on which the cells of a column are aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    /// For text. The widest column of text is wrapped where the table would be too wide.
    Left,
    /// For numbers.
    Right,
}

/// Rows of cells under a heading.
#[derive(Debug)]
pub(super) struct Table {
    heading: Vec<String>,
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table without rows. Its columns have these headings.
    pub(super) fn new<const N: usize>(columns: [(&str, Align); N]) -> Self {
        let heading = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let aligns = columns.iter().map(|(_, align)| *align).collect();
        Table { heading, aligns, rows: Vec::new() }
    }

    /// Adds a row, with as many cells as there are columns.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.heading.len(), "a row has a cell for each column");
        self.rows.push(cells.into());
    }

    /// Returns true if the table has no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the lines of the table: the heading, then the rows. A long cell takes several lines.
    pub(super) fn lines(&self) -> Vec<String> {
        let widths = self.widths();
        let mut lines = Vec::new();
        for row in std::iter::once(&self.heading).chain(&self.rows) {
            lines.extend(self.row_lines(row, &widths));
        }
        lines
    }

    /// Returns the text of the table.
    pub(super) fn render(&self) -> String {
        joined(self.lines())
    }

    /// Returns the text of the table in as many blocks as fit side by side, each with its own heading. The rows run down
    /// the first block, then down the next one.
    pub(super) fn render_side_by_side(&self) -> String {
        let block_width = self.widths().iter().sum::<usize>() + GAP * (self.heading.len() - 1);
        let blocks = ((WIDTH + GUTTER) / (block_width + GUTTER)).clamp(1, self.rows.len().max(1));
        let rows_per_block = self.rows.len().div_ceil(blocks);
        let lines = self.lines();
        let (heading, rows) = lines.split_first().expect("a table has a heading");
        if blocks == 1 || rows.len() != self.rows.len() {
            return joined(lines);
        }
        let mut printed = Vec::new();
        for line in 0..=rows_per_block {
            let mut text = String::new();
            for block in rows.chunks(rows_per_block) {
                let part = if line == 0 { Some(heading) } else { block.get(line - 1) };
                let part = part.map_or("", String::as_str);
                let _ = write!(text, "{part:block_width$}{:GUTTER$}", "");
            }
            printed.push(text.trim_end().to_owned());
        }
        joined(printed)
    }

    /// Returns the width of each column. The widest column of text gives way where the table would be too wide.
    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.heading.iter().map(|heading| width(heading)).collect();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                widths[column] = widths[column].max(width(cell));
            }
        }
        loop {
            let total = widths.iter().sum::<usize>() + GAP * (widths.len() - 1);
            let texts = (0..widths.len()).filter(|column| self.aligns[*column] == Align::Left);
            let Some(widest) = texts.max_by_key(|column| widths[*column]) else { return widths };
            if total <= WIDTH || widths[widest] <= TEXT_MIN {
                return widths;
            }
            widths[widest] -= 1;
        }
    }

    fn row_lines(&self, row: &[String], widths: &[usize]) -> Vec<String> {
        let cells: Vec<Vec<String>> = row.iter().zip(widths).map(|(cell, width)| wrapped(cell, *width, "")).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or_default();
        let mut lines = Vec::new();
        for line in 0..height {
            let mut text = String::new();
            for (column, cell) in cells.iter().enumerate() {
                let part = cell.get(line).map_or("", String::as_str);
                let width = widths[column];
                if column > 0 {
                    let _ = write!(text, "{:GAP$}", "");
                }
                let _ = match self.aligns[column] {
                    Align::Left => write!(text, "{part:<width$}"),
                    Align::Right => write!(text, "{part:>width$}"),
                };
            }
            lines.push(text.trim_end().to_owned());
        }
        lines
    }
}

/// Returns `text` on lines of at most [`WIDTH`] characters. Every line but the first of each line of `text` begins with
/// `indent`. A word that is longer than a line is broken.
pub(super) fn wrap(text: &str, indent: &str) -> String {
    joined(wrapped(text, WIDTH, indent))
}

/// Returns a list as one paragraph: the title, then the items with commas between them.
pub(super) fn list<'a>(title: &str, items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<&str> = items.into_iter().collect();
    wrap(&format!("{title}: {}", items.join(", ")), "  ")
}

fn wrapped(text: &str, width_max: usize, indent: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        // What a line is indented by, it keeps.
        let mut current: String = line.chars().take_while(|c| *c == ' ').take(width_max / 2).collect();
        let mut is_begun = false;
        for word in line.split(' ').filter(|word| !word.is_empty()) {
            if is_begun && width(&current) + 1 + width(word) > width_max {
                lines.push(std::mem::replace(&mut current, indent.to_owned()));
                is_begun = false;
            }
            if is_begun {
                current.push(' ');
            }
            for c in word.chars() {
                if width(&current) >= width_max {
                    lines.push(std::mem::replace(&mut current, indent.to_owned()));
                }
                current.push(c);
            }
            is_begun = true;
        }
        lines.push(current);
    }
    lines
}

fn joined(lines: Vec<String>) -> String {
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_fits(text: &str) {
        for line in text.lines() {
            assert!(width(line) <= WIDTH, "{} characters: {line}", width(line));
        }
    }

    #[test]
    fn text_is_aligned_on_the_left_and_numbers_on_the_right() {
        let mut table = Table::new([("fault", Align::Left), ("planned", Align::Right), ("effect", Align::Right)]);
        table.row(["cut".into(), "19".into(), "7".into()]);
        table.row(["partition".into(), "1".into(), "0".into()]);
        let expected = "fault      planned  effect\ncut             19       7\npartition        1       0\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn a_cell_that_is_too_long_takes_several_lines() {
        let mut table = Table::new([("failure", Align::Left), ("seeds", Align::Right)]);
        let message = "called `Option::unwrap()` on a `None` value, in a task of which nothing else is known";
        table.row([message.into(), "3".into()]);
        table.row(["x".repeat(200), "12".into()]);
        let text = table.render();
        assert_fits(&text);
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[1].starts_with("called ") && rows[1].ends_with("      3"), "{text}");
        assert!(rows[2].starts_with("else is known") || rows[2].starts_with("known"), "{text}");
        assert_eq!(text.matches('x').count(), 200);
    }

    #[test]
    fn short_rows_stand_side_by_side_and_run_downwards() {
        let mut table = Table::new([("mark", Align::Left), ("times", Align::Right)]);
        for (name, count) in [("one", 1), ("two", 2), ("three", 3), ("four", 4), ("five", 5)] {
            let name = format!("{name:-<25}");
            table.row([name, count.to_string()]);
        }
        let text = table.render_side_by_side();
        assert_fits(&text);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[0].matches("mark").count(), 2);
        assert!(lines[1].contains("one") && lines[1].contains("four"), "{text}");
        assert!(lines[3].contains("three") && !lines[3].contains("  four"), "{text}");
    }

    #[test]
    fn a_table_without_rows_is_its_heading() {
        let table = Table::new([("mark", Align::Left), ("times", Align::Right)]);
        assert!(table.is_empty());
        assert_eq!((table.render(), table.render_side_by_side()), ("mark  times\n".into(), "mark  times\n".into()));
    }

    #[test]
    fn a_paragraph_is_wrapped_between_words_and_indented() {
        let words = ["cache_fill_raced"; 9].join(" ");
        let text = wrap(&words, "  ");
        assert_fits(&text);
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), words.split(' ').collect::<Vec<_>>());
        assert!(text.lines().skip(1).all(|line| line.starts_with("  cache")), "{text}");
    }

    #[test]
    fn a_word_that_is_longer_than_a_line_is_broken() {
        let text = wrap(&format!("  at {}", "x".repeat(200)), "    ");
        assert_fits(&text);
        assert!(text.starts_with("  at"), "{text}");
        assert_eq!(text.matches('x').count(), 200);
    }
}
