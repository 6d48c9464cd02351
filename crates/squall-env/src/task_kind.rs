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
pub struct TaskKind(&'static str);

impl TaskKind {
    /// A kind of task. The label stands for it in metrics and logs, and seeds its [`PollDelay`](super::PollDelay)s.
    pub const fn new(label: &'static str) -> Self {
        TaskKind(label)
    }

    /// The label in metrics and logs.
    pub const fn label(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
