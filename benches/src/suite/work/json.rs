//! A service that reads a document, changes it and answers with another.

use serde_json::Value;

use super::parallel::parallel;
use crate::suite::Job;

pub fn run(job: &Job) -> u64 {
    let text = job.corpus.metadata();
    parallel(
        job.threads,
        job.portion(20),
        || (),
        |(), _| {
            let mut value: Value = serde_json::from_str(&text).expect("cargo writes JSON");
            rewrite(&mut value);
            serde_json::to_string(&value)
                .expect("a value can be written")
                .len() as u64
        },
    )
}

/// Turns each key to upper case and each string around.
fn rewrite(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(rewrite),
        Value::Object(entries) => {
            *entries = std::mem::take(entries)
                .into_iter()
                .map(|(key, mut value)| {
                    rewrite(&mut value);
                    (key.to_uppercase(), value)
                })
                .collect();
        }
        Value::String(text) => *text = text.chars().rev().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
