//! The live table of `squall follow`. It fits a terminal of 80 columns and 24 lines.

mod rates;
mod screen;
mod view;

use std::io::{self, Stdout};

use crate::follow::Follower;
use rates::Rates;
use screen::Screen;
use squall_judge::observation::SimTime;
use view::View;

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
        self.screen.draw(View::of(title, now, follower, &self.rates, counts_habits).lines())
    }

    /// Removes the table.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.screen.clear()
    }
}
