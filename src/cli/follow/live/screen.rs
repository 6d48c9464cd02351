//! A block of text at the end of a terminal, which is redrawn in place.
//!
//! The cursor rests on a line of its own below the block. So the `^C` that a terminal echoes does not move the block, and
//! nothing of it is left when it is removed.

use std::io::{self, Write};

/// Keeps lines that are too long from wrapping, which would make the block higher than it counts.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// A block of text on a terminal.
#[derive(Debug)]
pub(super) struct Screen<W> {
    terminal: W,
    /// The lines that are on the terminal.
    block: Vec<String>,
}

impl<W: Write> Screen<W> {
    /// Returns a screen without a block.
    pub(super) fn new(terminal: W) -> Self {
        Screen { terminal, block: Vec::new() }
    }

    /// Replaces the block.
    pub(super) fn draw(&mut self, lines: Vec<String>) -> io::Result<()> {
        let text = self.erasure() + &block_text(&lines);
        self.block = lines;
        self.write(&text)
    }

    /// Writes a line above the block.
    pub(super) fn print(&mut self, line: &str) -> io::Result<()> {
        let text = format!("{}{line}\r\n{}", self.erasure(), block_text(&self.block));
        self.write(&text)
    }

    /// Removes the block.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        let text = self.erasure();
        self.block.clear();
        self.write(&text)
    }

    /// Returns the sequence that erases the block and leaves the cursor where it began.
    fn erasure(&self) -> String {
        match self.block.len() {
            0 => String::new(),
            // To the line's beginning, up to the block's first line, and erase to the end of the terminal.
            height => format!("\r\x1b[{height}A\x1b[J"),
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.terminal.write_all(text.as_bytes())?;
        self.terminal.flush()
    }
}

fn block_text(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
    if lines.is_empty() { text } else { format!("{NO_WRAP}{text}{WRAP}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: usize = 80;
    const LINES: usize = 24;

    /// A terminal that understands the sequences above.
    struct Terminal {
        lines: Vec<Vec<char>>,
        row: usize,
        column: usize,
        wraps: bool,
        /// Lines that have left the terminal at its top.
        gone: Vec<String>,
        input: String,
    }

    impl Terminal {
        fn new() -> Self {
            let lines = vec![Vec::new(); LINES];
            Terminal { lines, row: 0, column: 0, wraps: true, gone: Vec::new(), input: String::new() }
        }

        fn down(&mut self) {
            self.row += 1;
            if self.row == LINES {
                self.gone.push(self.lines.remove(0).into_iter().collect());
                self.lines.push(Vec::new());
                self.row -= 1;
            }
        }

        fn put(&mut self, c: char) {
            if self.column == COLUMNS && self.wraps {
                self.column = 0;
                self.down();
            }
            let column = self.column.min(COLUMNS - 1);
            let line = &mut self.lines[self.row];
            line.resize(line.len().max(column + 1), ' ');
            line[column] = c;
            self.column = (self.column + 1).min(COLUMNS);
        }

        fn escape(&mut self, sequence: &str) {
            match sequence {
                "?7l" => self.wraps = false,
                "?7h" => self.wraps = true,
                "J" => {
                    self.lines[self.row].truncate(self.column);
                    for line in &mut self.lines[self.row + 1..] {
                        line.clear();
                    }
                }
                _ => {
                    let up: usize = sequence.strip_suffix('A').unwrap().parse().unwrap();
                    self.row = self.row.checked_sub(up).expect("the cursor stays on the terminal");
                }
            }
        }

        /// Returns the lines that were ever shown and not erased.
        fn shown(&self) -> Vec<String> {
            let lines = self.lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned());
            self.gone.iter().cloned().chain(lines).filter(|line| !line.is_empty()).collect()
        }
    }

    impl Write for Terminal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.input.push_str(std::str::from_utf8(bytes).unwrap());
            let input = std::mem::take(&mut self.input);
            let mut rest = input.chars();
            while let Some(c) = rest.next() {
                match c {
                    '\r' => self.column = 0,
                    '\n' => self.down(),
                    '\x1b' => {
                        assert_eq!(rest.next(), Some('['));
                        let text = rest.as_str();
                        let length = text.find(|c: char| c.is_ascii_alphabetic()).unwrap() + 1;
                        self.escape(&text[..length]);
                        rest = text[length..].chars();
                    }
                    c => self.put(c),
                }
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn block(height: usize, width: usize, letter: char) -> Vec<String> {
        vec![letter.to_string().repeat(width); height]
    }

    #[test]
    fn a_block_is_replaced_in_place() {
        let mut screen = Screen::new(Terminal::new());
        for (height, letter) in [(3, 'a'), (23, 'b'), (2, 'c')] {
            screen.draw(block(height, 80, letter)).unwrap();
            assert_eq!(screen.terminal.shown(), block(height, 80, letter));
        }
    }

    #[test]
    fn lines_stand_above_the_block() {
        let mut screen = Screen::new(Terminal::new());
        let mut printed = Vec::new();
        for number in 0..40 {
            screen.draw(block(1 + number % 23, 80, 'b')).unwrap();
            printed.push(format!("line {number}"));
            screen.print(&printed[number]).unwrap();
            let expected = [printed.clone(), block(1 + number % 23, 80, 'b')].concat();
            assert_eq!(screen.terminal.shown(), expected);
        }
    }

    #[test]
    fn nothing_is_left_of_a_block_that_is_removed_even_after_an_echo() {
        for (height, width) in [(1, 1), (23, 80), (5, 200)] {
            let mut screen = Screen::new(Terminal::new());
            screen.print("above").unwrap();
            screen.draw(block(height, width, 'b')).unwrap();
            screen.draw(block(height, width, 'c')).unwrap();
            screen.terminal.write_all(b"^C").unwrap();
            screen.clear().unwrap();
            assert_eq!(screen.terminal.shown(), ["above"], "{height} lines of {width}");
            screen.print("below").unwrap();
            assert_eq!(screen.terminal.shown(), ["above", "below"]);
        }
    }
}
