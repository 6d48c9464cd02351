//! The text of the live table. A stream whose writers do not all fit has one line for them.

use super::rates::Rates;
use crate::cli::findings::{of_classes, printable};
use crate::cli::table::{Align, Table, WIDTH};
use crate::follow::{Follower, WriterState};
use squall_judge::observation::SimTime;

/// Number of letters of a stream's name. With those of a writer's, the lines fit 80 columns.
const STREAM_LETTERS_MAX: usize = 12;
const WRITER_LETTERS_MAX: usize = 10;

/// The size of a terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub lines: usize,
    pub columns: usize,
}

impl Default for Size {
    /// Returns the size of a terminal that does not tell its own.
    fn default() -> Self {
        Size { lines: 24, columns: WIDTH }
    }
}

/// The content of the live table.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The lines above the table.
    head: Vec<String>,
    /// The streams, by name.
    streams: Vec<(String, Vec<Row>)>,
}

/// One row of the table: a writer of a stream, or several of them.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    stream: String,
    writer: String,
    token: Option<i64>,
    rows_per_second: f64,
    behind: u64,
    quiet_ms: Option<u64>,
    late_ms: Option<u64>,
    unsent: u64,
    findings: u64,
}

impl View {
    /// Returns what a follower knows now.
    pub(super) fn of(title: &str, now: SimTime, follower: &Follower, rates: &Rates, counts_habits: bool) -> View {
        let mut streams: Vec<(String, Vec<Row>)> = Vec::new();
        let mut total = 0.0;
        for WriterState { origin, counts, behind, silent_ms, late_ms, found } in follower.writers(now) {
            let rows_per_second = rates.rows_per_second(&origin);
            total += rows_per_second;
            let stream = printable(origin.stream.as_str());
            let row = Row {
                stream: stream.clone(),
                writer: printable(origin.writer.as_str()),
                token: counts.last_token.map(|token| token.0),
                rows_per_second,
                behind: behind.unwrap_or_default(),
                quiet_ms: silent_ms,
                late_ms,
                unsent: counts.unsent,
                findings: found.count + if counts_habits { found.habits } else { 0 },
            };
            match streams.last_mut() {
                Some((last, rows)) if *last == stream => rows.push(row),
                _ => streams.push((stream, vec![row])),
            }
        }
        let tally = follower.tally();
        let state = match follower.disconnected() {
            Some(why) => format!("DISCONNECTED: {}", printable(why)),
            None => {
                let replicates = rates.replicates_per_minute();
                let payloads = tally.payloads;
                format!("{payloads} payloads, {} rows a second, {replicates} REPLICATEs a minute", rate(total))
            }
        };
        View { head: vec![title.to_owned(), state, findings_by_class(follower)], streams }
    }

    /// Returns the text for a terminal of this size. It leaves a line for the cursor.
    pub(super) fn lines(&self, size: Size) -> Vec<String> {
        let lines_max = size.lines.saturating_sub(1);
        let mut table = Table::new([
            ("stream", Align::Left),
            ("writer", Align::Left),
            ("token", Align::Right),
            ("rows/s", Align::Right),
            ("lag", Align::Right),
            ("quiet", Align::Right),
            ("late", Align::Right),
            ("unsent", Align::Right),
            ("found", Align::Right),
        ]);
        for line in self.rows(lines_max.saturating_sub(self.head.len() + 1)) {
            let time = |ms: Option<u64>| ms.map_or_else(String::new, duration);
            table.row([
                short(&line.stream, STREAM_LETTERS_MAX),
                short(&line.writer, WRITER_LETTERS_MAX),
                line.token.map_or_else(String::new, |token| number(token.unsigned_abs(), 10, token < 0)),
                rate(line.rows_per_second),
                number(line.behind, 5, false),
                time(line.quiet_ms),
                time(line.late_ms),
                number(line.unsent, 6, false),
                number(line.findings, 5, false),
            ]);
        }
        let mut lines: Vec<String> = self.head.iter().map(|line| short(line, size.columns.max(1))).collect();
        if !table.is_empty() {
            // The terminal cuts the end of a line that is too long.
            lines.extend(table.lines());
        }
        lines.truncate(lines_max);
        lines
    }

    /// Returns the rows of the table, at most `max`. Streams with the fewest writers are shown writer by writer first.
    fn rows(&self, max: usize) -> Vec<Row> {
        let mut shown: Vec<Vec<Row>> = self.streams.iter().map(|(_, lines)| vec![together(lines)]).collect();
        let mut free = max.saturating_sub(shown.len());
        let mut by_size: Vec<usize> = (0..self.streams.len()).collect();
        by_size.sort_by_key(|index| self.streams[*index].1.len());
        for index in by_size {
            let lines = &self.streams[index].1;
            let Some(left) = free.checked_sub(lines.len().saturating_sub(1)) else { break };
            free = left;
            shown[index].clone_from(lines);
        }
        let mut lines = shown.concat();
        if max == 0 {
            return Vec::new();
        }
        if lines.len() > max {
            let rest = lines.split_off(max - 1);
            let mut last = together(&rest);
            last.stream = format!("{} more", rest.len());
            last.writer = String::new();
            last.token = None;
            lines.push(last);
        }
        lines
    }
}

/// Returns the line for several writers.
fn together(lines: &[Row]) -> Row {
    let [first, others @ ..] = lines else { panic!("a stream has a writer") };
    let mut sum = first.clone();
    if !others.is_empty() {
        sum.writer = format!("{} writers", lines.len());
    }
    for line in others {
        sum.token = sum.token.max(line.token);
        sum.rows_per_second += line.rows_per_second;
        sum.behind = sum.behind.max(line.behind);
        sum.quiet_ms = sum.quiet_ms.into_iter().chain(line.quiet_ms).min();
        sum.late_ms = sum.late_ms.max(line.late_ms);
        sum.unsent = sum.unsent.saturating_add(line.unsent);
        sum.findings += line.findings;
    }
    sum
}

fn findings_by_class(follower: &Follower) -> String {
    let words = of_classes(&follower.counts_by_class());
    if words.is_empty() { "no findings".to_owned() } else { format!("found: {words}") }
}

/// Cuts the middle out of a text that is too long.
fn short(text: &str, letters_max: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= letters_max {
        return text.to_owned();
    }
    let tail = (letters_max - 1) / 2;
    let head = letters_max - 1 - tail;
    letters[..head].iter().chain(&['…']).chain(&letters[letters.len() - tail..]).collect()
}

/// Returns a number in at most `letters_max` letters, of which there are four or more: `999`, `12k`, `3M`.
fn number(number: u64, letters_max: usize, is_negative: bool) -> String {
    let sign = if is_negative { "-" } else { "" };
    let mut text = format!("{sign}{number}");
    let mut scaled = number;
    for unit in ["k", "M", "G", "T", "P", "E"] {
        if text.len() <= letters_max {
            break;
        }
        scaled /= 1_000;
        text = format!("{sign}{scaled}{unit}");
    }
    text
}

/// Returns a rate, in at most six letters.
fn rate(per_second: f64) -> String {
    if per_second < 100.0 { format!("{per_second:.1}") } else { number(per_second.round() as u64, 6, false) }
}

/// Returns a time, in at most five letters.
fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..10_000 => format!("{:.1}s", ms as f64 / 1_000.0),
        10_000..120_000 => format!("{}s", ms / 1_000),
        120_000..7_200_000 => format!("{}m", ms / 60_000),
        7_200_000..172_800_000 => format!("{}h", ms / 3_600_000),
        _ => number(ms / 86_400_000, 4, false) + "d",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stream: &str, writer: &str) -> Row {
        Row {
            stream: stream.to_owned(),
            writer: writer.to_owned(),
            token: Some(7),
            rows_per_second: 1.0,
            behind: 0,
            quiet_ms: Some(500),
            late_ms: None,
            unsent: 1,
            findings: 2,
        }
    }

    /// Returns a view with these numbers of writers.
    fn view(sizes: &[usize]) -> View {
        let mut streams = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            let name = format!("stream_with_a_long_name_{index}");
            let lines = (0..*size).map(|writer| line(&name, &format!("event_persister_{writer}"))).collect();
            streams.push((name, lines));
        }
        View { head: vec!["h on the broker".into(), "payloads".into(), "no findings".into()], streams }
    }

    fn assert_fits(view: &View) -> Vec<String> {
        let lines = view.lines(Size::default());
        assert!(lines.len() <= 23, "{} lines: {lines:#?}", lines.len());
        for line in &lines {
            assert!(line.chars().count() <= 80, "{} letters: {line}", line.chars().count());
        }
        lines
    }

    #[test]
    fn it_fits_a_terminal_with_any_number_of_streams_and_writers() {
        for sizes in [&[20; 19][..], &[1; 19], &[2000; 100], &[1; 100], &[20, 1, 1], &[]] {
            assert_fits(&view(sizes));
        }
    }

    #[test]
    fn it_takes_the_lines_that_the_terminal_has() {
        let view = view(&[20, 3, 2]);
        let lines_at = |lines, columns| view.lines(Size { lines, columns });
        assert_eq!(lines_at(50, 80).len(), 3 + 1 + 25, "every writer has a line");
        for lines in 0..30 {
            assert!(lines_at(lines, 80).len() <= lines.saturating_sub(1), "{lines}");
        }
        assert_eq!(lines_at(6, 80).last().unwrap().split_whitespace().next(), Some("3"), "3 more, on one line");
        for columns in [0, 1, 20] {
            let head = &lines_at(24, columns)[..3];
            assert!(head.iter().all(|line| line.chars().count() <= columns.max(1)), "{head:?}");
        }
    }

    #[test]
    fn it_fits_a_terminal_with_the_longest_values() {
        let mut view = view(&[20; 19]);
        view.head = vec!["x".repeat(500); 3];
        for (_, lines) in &mut view.streams {
            for line in lines {
                let max = u64::MAX / 100;
                let (token, late_ms) = (Some(i64::MIN), Some(max));
                *line = Row { token, rows_per_second: 1e15, behind: max, quiet_ms: Some(max), late_ms, ..line.clone() };
                (line.unsent, line.findings) = (max, max);
            }
        }
        assert_fits(&view);
    }

    #[test]
    fn a_stream_that_does_not_fit_has_one_line_and_smaller_ones_have_all_of_theirs() {
        let lines = assert_fits(&view(&[3, 20, 2]));
        assert_eq!(lines.len(), 3 + 1 + 3 + 1 + 2, "{lines:#?}");
        let folded = lines.iter().find(|line| line.contains("20 writers")).expect("it is folded");
        assert_eq!(
            folded.split_whitespace().collect::<Vec<_>>(),
            ["stream…ame_1", "20", "writers", "7", "20.0", "0", "500ms", "20", "40"]
        );
        let few = assert_fits(&view(&[3, 5, 2]));
        assert!(!few.iter().any(|line| line.contains("writers")), "{few:#?}");
    }

    #[test]
    fn streams_that_do_not_fit_have_the_last_line() {
        let lines = assert_fits(&view(&[1; 30]));
        assert_eq!(lines.len(), 23);
        assert!(lines[22].starts_with("12 more "), "{lines:#?}");
        assert!(lines[22].contains("12.0"), "{lines:#?}");
    }

    #[test]
    fn numbers_times_and_names_are_short() {
        assert_eq!(number(999_999, 6, false), "999999");
        assert_eq!(number(1_000_000, 6, false), "1000k");
        assert_eq!(number(12_345, 4, true), "-12k");
        assert_eq!(
            [0, 999, 1_500, 60_000, 600_000, 86_400_000].map(duration),
            ["0ms", "999ms", "1.5s", "60s", "10m", "24h"]
        );
        assert_eq!([0.04, 12.34, 123.4, 1_234_567.0].map(rate), ["0.0", "12.3", "123", "1234k"]);
        assert_eq!(short("un_partial_stated_event", 13), "un_par…_event");
        assert_eq!(short("events", 13), "events");
    }
}
