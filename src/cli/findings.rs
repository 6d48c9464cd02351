//! The findings of an audit: the operator's choice of those that count, and a summary for a reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::Args;

use super::summary::of_count;
use super::table::{self, Align, Table, wrap};
use squall_judge::audit::{Class, Exceeded, Finding, Gaps, IgnoredKind, Tally};
use squall_protocol::{Escaped, Token};

/// Number of gaps that a summary lists if it is not verbose.
const GAPS_LISTED_MAX: usize = 5;

/// Number of kinds of findings, and of writers with tokens without a row, that a summary lists. A healthy deployment has
/// some dozens.
const LISTED_MAX: usize = 100;

/// The stream whose newer rows replace older ones before these are sent, so that many of its tokens have no row.
const COALESCED: &str = "presence";

/// The findings that count.
#[derive(Debug, Args)]
pub(super) struct FindingArguments {
    /// Count every class of findings, also the habits that each Synapse of this version has.
    #[arg(long)]
    strict: bool,
    /// Leave out findings of this kind: RULE/KIND or RULE/STREAM/KIND, or the beginning of one, such as
    /// tokens_ascend/caches. Repeat it for each kind.
    #[arg(long = "ignore", value_name = "KIND", value_parser = IgnoredKind::parse)]
    ignored: Vec<IgnoredKind>,
}

impl FindingArguments {
    /// Returns the kinds to leave out.
    pub(super) fn ignored(&self) -> Vec<IgnoredKind> {
        self.ignored.clone()
    }

    /// Returns true if findings of this class count.
    pub(super) fn counts(&self, class: Class) -> bool {
        self.strict || class.is_reason_to_act()
    }
}

/// Findings of one kind and class.
#[derive(Debug, Clone, Copy)]
pub(super) struct KindFound<'a> {
    pub class: Class,
    pub fingerprint: &'a str,
    /// Their number.
    pub count: u64,
    /// The first of them.
    pub first: &'a Finding,
}

/// The results of an audit, for a reader.
pub(super) struct Summary<'a> {
    pub tally: &'a Tally,
    /// The reason why nothing was checked, if there is one, in place of a verdict.
    pub nothing: Option<&'static str>,
    /// Number of checks of each rule.
    pub checks: Vec<(&'static str, u64)>,
    /// The gaps.
    pub gaps: &'a Gaps,
    /// The kinds of findings that count.
    pub kinds: Vec<KindFound<'a>>,
    /// The kinds of findings that do not count.
    pub habits: Vec<KindFound<'a>>,
    /// Number of findings that the operator left out.
    pub ignored: u64,
    /// Findings to list one by one. If there are none, one example of each kind is listed.
    pub findings: &'a [Finding],
    /// Number of the findings beyond those to list, by class, rule and kind.
    pub left_out: &'a BTreeMap<(Class, &'static str, &'static str), u64>,
    /// The bounds that the traffic exceeded.
    pub exceeded: Vec<Exceeded>,
    /// True if every writer and every gap is listed.
    pub verbose: bool,
}

impl Summary<'_> {
    /// Returns the summary on lines of at most 80 characters. The verdict is the last line.
    pub(super) fn text(&self) -> String {
        let mut text = self.of_payloads();
        text.push('\n');
        text.push_str(&self.of_checks());
        if !self.kinds.is_empty() || !self.findings.is_empty() {
            text.push('\n');
            text.push_str(&self.of_findings());
        }
        if !self.habits.is_empty() {
            text.push('\n');
            text.push_str(&self.of_habits());
        }
        text.push('\n');
        for exceeded in &self.exceeded {
            text.push_str(&wrap(&format!("not all was judged: {exceeded}"), "  "));
        }
        if self.ignored > 0 {
            let _ = writeln!(text, "ignored: {}", of_count(self.ignored, "finding"));
        }
        let _ = writeln!(text, "verdict: {}", self.verdict());
        text
    }

    /// Returns the number of findings of each class.
    fn verdict(&self) -> String {
        if let Some(nothing) = self.nothing {
            return nothing.to_owned();
        }
        let mut by_class: BTreeMap<Class, u64> = BTreeMap::new();
        for kind in &self.kinds {
            *by_class.entry(kind.class).or_default() += kind.count;
        }
        let kinds = of_count(self.kinds.len(), "kind");
        let mut verdict = match by_class.len() {
            0 => "no findings".to_owned(),
            1 => format!("{} of {kinds}", of_classes(&by_class)),
            _ => format!("{} of {kinds}: {}", of_count(count(&self.kinds), "finding"), of_classes(&by_class)),
        };
        if !self.habits.is_empty() {
            let _ = write!(verdict, "; {}", of_count(count(&self.habits), "habit"));
        }
        verdict
    }

    /// Returns what was read: the commands, the streams and the gaps.
    fn of_payloads(&self) -> String {
        let tally = self.tally;
        let commands: Vec<String> = tally.commands.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let mut text = if commands.is_empty() {
            format!("{} of {} payloads parsed\n", tally.parsed, tally.payloads)
        } else {
            let title = format!("{} of {} payloads parsed", tally.parsed, tally.payloads);
            table::list(&title, commands.iter().map(String::as_str))
        };
        if !tally.streams.is_empty() {
            text.push('\n');
            text.push_str(&if self.verbose { self.of_writers() } else { self.of_streams() });
        }
        text.push_str(&self.of_unsent());
        let unknown: Vec<String> =
            tally.unknown_streams().into_iter().map(|stream| printable(stream.as_str())).collect();
        if !unknown.is_empty() {
            text.push_str(&table::list("rows not parsed, of unknown streams", unknown.iter().map(String::as_str)));
        }
        let Gaps { last, count, ms } = self.gaps;
        if *count > 0 {
            text.push('\n');
            let listed = if self.verbose { last.len() } else { last.len().min(GAPS_LISTED_MAX) };
            for gap in last.range(last.len() - listed..) {
                text.push_str(&wrap(&printable(&gap.to_string()), "  "));
            }
            let seconds = *ms as f64 / 1_000.0;
            let _ = writeln!(text, "{}, {seconds:.3} s in all", of_count(*count, "gap"));
        }
        text
    }

    /// Returns the tokens for which no row was sent.
    fn of_unsent(&self) -> String {
        let mut unsent = Vec::new();
        for (stream, writers) in self.tally.streams.iter().filter(|(stream, _)| stream.as_str() != COALESCED) {
            for (writer, counts) in writers.iter().filter(|(_, counts)| counts.unsent > 0) {
                let last: Vec<String> = counts.last_unsent.iter().map(Token::to_string).collect();
                let more = if counts.unsent > last.len() as u64 { "…, " } else { "" };
                unsent.push(printable(&format!("{stream} of {writer} ({more}{})", last.join(", "))));
            }
        }
        if unsent.is_empty() {
            return String::new();
        }
        let more = unsent.len().saturating_sub(LISTED_MAX);
        if more > 0 {
            unsent.truncate(LISTED_MAX);
            unsent.push(format!("and {more} more"));
        }
        table::list(
            "no row was sent for some tokens, so rows were lost or transactions failed",
            unsent.iter().map(String::as_str),
        )
    }

    fn of_streams(&self) -> String {
        let mut streams = Table::new([
            ("stream", Align::Left),
            ("writers", Align::Right),
            ("rows", Align::Right),
            ("positions", Align::Right),
            ("last token", Align::Right),
            ("unsent", Align::Right),
        ]);
        for (stream, writers) in &self.tally.streams {
            let last_token = writers.values().filter_map(|counts| counts.last_token).max();
            streams.row([
                printable(stream.as_str()),
                writers.len().to_string(),
                writers.values().map(|counts| counts.rows).sum::<u64>().to_string(),
                writers.values().map(|counts| counts.positions).sum::<u64>().to_string(),
                of_token(last_token),
                writers.values().map(|counts| counts.unsent).sum::<u64>().to_string(),
            ]);
        }
        streams.render()
    }

    fn of_writers(&self) -> String {
        let mut rows = Table::new([
            ("stream", Align::Left),
            ("writer", Align::Left),
            ("rows", Align::Right),
            ("positions", Align::Right),
            ("last token", Align::Right),
            ("unsent", Align::Right),
        ]);
        for (stream, writers) in &self.tally.streams {
            for (writer, counts) in writers {
                rows.row([
                    printable(stream.as_str()),
                    printable(writer.as_str()),
                    counts.rows.to_string(),
                    counts.positions.to_string(),
                    of_token(counts.last_token),
                    counts.unsent.to_string(),
                ]);
            }
        }
        rows.render()
    }

    /// Returns what was checked: each rule with its checks and findings.
    fn of_checks(&self) -> String {
        let found = by_rule(&self.kinds);
        let habits = by_rule(&self.habits);
        let columns =
            [("rule", Align::Left), ("checks", Align::Right), ("findings", Align::Right), ("habits", Align::Right)];
        let mut rules = Table::new(columns);
        for (rule, checks) in &self.checks {
            let of_rule = |counts: &BTreeMap<&str, u64>| counts.get(rule).copied().unwrap_or_default().to_string();
            rules.row([(*rule).to_owned(), checks.to_string(), of_rule(&found), of_rule(&habits)]);
        }
        rules.render()
    }

    /// Returns what was found: each kind with its number, then every finding or one example of each kind of each rule.
    fn of_findings(&self) -> String {
        let mut kinds = Table::new([
            ("finding", Align::Left),
            ("class", Align::Left),
            ("times", Align::Right),
            ("first line", Align::Right),
        ]);
        for KindFound { class, fingerprint, count, first } in self.kinds.iter().take(LISTED_MAX) {
            kinds.row([printable(fingerprint), class.to_string(), count.to_string(), first.line.to_string()]);
        }
        let mut text = if kinds.is_empty() { String::new() } else { kinds.render() };
        if let more @ 1.. = self.kinds.len().saturating_sub(LISTED_MAX) {
            let _ = writeln!(text, "… and {} more", of_count(more, "kind"));
        }
        if !kinds.is_empty() {
            text.push('\n');
        }
        if self.findings.is_empty() {
            // One example for all streams is enough.
            let mut explained = BTreeSet::new();
            for KindFound { class, first, .. } in &self.kinds {
                if explained.insert((class, first.violation.rule(), first.violation.kind())) {
                    text.push_str(&of_finding(first));
                }
            }
        } else {
            for finding in self.findings {
                text.push_str(&of_finding(finding));
            }
            for ((class, rule, kind), count) in self.left_out {
                let _ = writeln!(text, "… and {count} more of {rule}/{kind} ({class})");
            }
        }
        text
    }

    /// Returns one line for each habit, with the number of streams or the only stream.
    fn of_habits(&self) -> String {
        let mut habits: BTreeMap<(&str, &str), Vec<&KindFound<'_>>> = BTreeMap::new();
        for kind in &self.habits {
            habits.entry((kind.first.violation.rule(), kind.first.violation.kind())).or_default().push(kind);
        }
        let mut table = Table::new([
            ("habit of every Synapse", Align::Left),
            ("times", Align::Right),
            ("streams", Align::Right),
            ("first line", Align::Right),
        ]);
        for ((rule, kind), of_streams) in habits {
            let name = match of_streams[..] {
                [only] => printable(only.fingerprint),
                _ => format!("{rule}/{kind}"),
            };
            let times: u64 = of_streams.iter().map(|kind| kind.count).sum();
            let first_line = of_streams.iter().map(|kind| kind.first.line).min().unwrap_or_default();
            table.row([name, times.to_string(), of_streams.len().to_string(), first_line.to_string()]);
        }
        table.render()
    }
}

/// Returns the number of findings of each class in words: "1 loss, 2 habits".
pub(super) fn of_classes(counts: &BTreeMap<Class, u64>) -> String {
    let words = counts.iter().filter(|(_, count)| **count > 0).map(|(class, count)| match (class, count) {
        (Class::Loss, 2..) => format!("{count} losses"),
        _ => of_count(*count, &class.to_string()),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Returns the number of all findings of these kinds.
fn count(kinds: &[KindFound<'_>]) -> u64 {
    kinds.iter().map(|kind| kind.count).sum()
}

/// Returns the number of findings of each rule.
fn by_rule(kinds: &[KindFound<'_>]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for kind in kinds {
        *counts.entry(kind.first.violation.rule()).or_default() += kind.count;
    }
    counts
}

fn of_finding(finding: &Finding) -> String {
    wrap(&printable(&format!("line {}: {}", finding.line, finding.violation)), "  ")
}

/// Returns a token, or "none".
pub(super) fn of_token(token: Option<Token>) -> String {
    token.map_or_else(|| "none".to_owned(), |token| token.to_string())
}

/// Escapes characters that could move the cursor of the reader's terminal or begin another line.
pub(super) fn printable(text: &str) -> String {
    Escaped(text).to_string()
}
