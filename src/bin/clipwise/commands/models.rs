//! `clipwise models`.

use std::io::Write;

use clipwise::models;

use crate::output::stdout;
use crate::run::{Outcome, Status};

/// List the models: names, what they are, where their checkpoints come from.
#[derive(clap::Args)]
pub struct Args {}

impl Args {
    pub fn run(self) -> Outcome {
        let mut out = stdout();
        for preset in models::presets() {
            writeln!(out, "{:<24} {}", preset.name(), preset.description)?;
        }
        Ok(Status::Good)
    }
}
