//! The live table of `squall follow`. It fits the terminal.

mod rates;
mod screen;
mod view;

use std::io::{self, Stdout};

use console::Term;

use crate::follow::Follower;
use rates::Rates;
use screen::Screen;
use squall_judge::observation::SimTime;
use view::{Size, View};

/// A table that is redrawn in place.
pub(super) struct Live {
    screen: Screen<Stdout>,
    rates: Rates,
}

impl Live {
    /// Returns a table that is drawn on standard output, which is a terminal.
    pub(super) fn new() -> Self {
        Live { screen: Screen::new(io::stdout()), rates: Rates::default() }
    }

    /// Prints a line above the table.
    pub(super) fn print(&mut self, line: &str) -> io::Result<()> {
        self.screen.print(line)
    }

    /// Draws the table as it is now. A writer's findings include habits of Synapse if it `counts_habits`.
    pub(super) fn draw(
        &mut self,
        title: &str,
        now: SimTime,
        follower: &Follower,
        counts_habits: bool,
    ) -> io::Result<()> {
        self.rates.sample(now, follower.tally());
        // Asked for each time, because the operator may change it.
        let size = Term::stdout().size_checked().map_or(Size::default(), |(lines, columns)| Size {
            lines: usize::from(lines),
            columns: usize::from(columns),
        });
        self.screen.draw(View::of(title, now, follower, &self.rates, counts_habits).lines(size))
    }

    /// Removes the table.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.screen.clear()
    }
}
