//! The kinds of tasks.

use std::fmt;

/// The kind of a task: a constant of the program, one for each place that spawns tasks.
///
/// ```
/// use squall_env::TaskKind;
///
/// /// Answers one request.
/// const REQUEST: TaskKind = TaskKind::new("request");
///
/// assert_eq!(REQUEST.label(), "request");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKind {
    /// The first bytes of the label as a number that orders kinds as their labels do. Most kinds differ in it.
    beginning: u64,
    label: &'static str,
}

impl TaskKind {
    /// A kind of task. The label stands for it in metrics and logs, and seeds its [`PollDelay`](super::PollDelay)s.
    pub const fn new(label: &'static str) -> Self {
        let mut bytes = [0; 8];
        let mut at = 0;
        while at < bytes.len() && at < label.len() {
            bytes[at] = label.as_bytes()[at];
            at += 1;
        }
        TaskKind { beginning: u64::from_be_bytes(bytes), label }
    }

    /// The label in metrics and logs.
    pub const fn label(self) -> &'static str {
        self.label
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label)
    }
}
