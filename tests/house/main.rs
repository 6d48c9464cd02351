//! Checks of the repository itself: its language, the imports between its modules, and its dependencies.
//!
//! A check of the sources names the file and the line. Each check of text has a test that plants what it looks for.

mod dependencies;
mod imports;
mod prose;
mod sources;
