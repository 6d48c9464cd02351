//! `squall plan`: prints the plan of a seed.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::{CliError, ScenarioArguments};
use crate::sim::plan::Plan;

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    /// Seed that the plan is drawn from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    scenario: ScenarioArguments,
}

pub(super) fn print(arguments: &PlanArguments) -> Result<ExitCode, CliError> {
    let plan = Plan::generate(arguments.scenario.scenario, arguments.seed);
    writeln!(std::io::stdout().lock(), "{}", plan.to_json())?;
    Ok(ExitCode::SUCCESS)
}
