//! The books of bursar and of the wrappers held against the truth.

use std::path::Path;
use std::process::Command;

use crate::books::exact::{Outcome, Step};
use crate::report;

/// Runs the scenario on a `prog_` binary.
///
/// # Errors
/// If the process cannot be started, fails, or says nothing.
pub fn run(binary: &Path) -> Result<Outcome, String> {
    let failed = |what: String| format!("{} exact: {what}", binary.display());
    let output = Command::new(binary)
        .arg("exact")
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

/// A step a line, an allocator a column: the bytes by which the books of the
/// two holders differ from the truth, where a block is its maker's until it is
/// freed, whoever frees or grows it.
#[must_use]
pub fn markdown(outcomes: &[Outcome]) -> String {
    let mut header = vec!["what happens".to_owned()];
    header.extend(outcomes.iter().map(|outcome| outcome.name.clone()));
    let steps = outcomes.first().map_or(0, |outcome| outcome.steps.len());
    let lines = (0..steps)
        .map(|step| {
            let mut cells = vec![outcomes[0].steps[step].what.clone()];
            cells.extend(outcomes.iter().map(|outcome| verdict(&outcome.steps[step])));
            cells
        })
        .collect();
    report::markdown(header, lines)
}

fn verdict(step: &Step) -> String {
    let off = [
        step.shown[0] - step.really[0],
        step.shown[1] - step.really[1],
    ];
    if off == [0, 0] {
        "exact".to_owned()
    } else {
        format!("{:+} and {:+}", off[0], off[1])
    }
}

/// Whether nothing was wrong.
#[must_use]
pub fn is_exact(outcome: &Outcome) -> bool {
    outcome.steps.iter().all(|step| step.shown == step.really)
}

#[cfg(test)]
mod tests {
    use super::{is_exact, markdown};
    use crate::books::exact::{Outcome, Step};

    fn outcome(name: &str, shown: [i64; 2]) -> Outcome {
        Outcome {
            name: name.to_owned(),
            steps: vec![Step {
                what: "one allocates".to_owned(),
                really: [64, 0],
                shown,
            }],
        }
    }

    #[test]
    fn what_is_shown_of_books_is_how_far_they_are_off() {
        let outcomes = [outcome("right", [64, 0]), outcome("wrong", [0, 64])];
        assert_eq!(outcomes.each_ref().map(is_exact), [true, false]);
        let table = markdown(&outcomes);
        let line = table.lines().last().unwrap();
        assert!(
            line.contains("exact") && line.contains("-64 and +64"),
            "{table}"
        );
    }
}
