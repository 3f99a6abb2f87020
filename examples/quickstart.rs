//! The three lines that install bursar, and what it says afterwards.

use std::collections::HashMap;

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

fn main() {
    let text = include_str!("../src/arena/record.rs");
    let mut words: HashMap<&str, Vec<usize>> = HashMap::new();
    for (line, text) in text.lines().enumerate() {
        for word in text
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
        {
            words.entry(word).or_default().push(line + 1);
        }
    }
    println!(
        "{} distinct words; bursar installed: {}",
        words.len(),
        bursar::is_installed()
    );
    print!("{}", bursar::stats());
}
