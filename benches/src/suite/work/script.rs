//! A game or a spreadsheet: scripts in an embedded interpreter.

use rhai::Engine;

use super::parallel::parallel;
use crate::suite::Job;

const SCRIPT: &str = r#"
    let words = [];
    let seed = 12345;
    for i in 0..4000 {
        seed = (seed * 1103515245 + 12345) % 2147483648;
        words.push("word" + (seed % 500).to_string());
    }
    let counts = #{};
    for word in words {
        if word in counts { counts[word] += 1; } else { counts[word] = 1; }
    }
    let pairs = [];
    for key in counts.keys() {
        pairs.push(#{ name: key, count: counts[key], tags: [key.len(), key] });
    }
    let frequent = pairs.filter(|pair| pair.count > 5);
    frequent.sort(|a, b| if a.name < b.name { -1 } else { 1 });
    let text = "";
    for pair in frequent {
        text += pair.name + "=" + pair.count.to_string() + ";";
    }
    text.len() + frequent.len()
"#;

pub fn run(job: &Job) -> u64 {
    let engine = || {
        let engine = Engine::new();
        let script = engine.compile(SCRIPT).expect("a valid script");
        (engine, script)
    };
    parallel(
        job.threads,
        job.portion(36),
        engine,
        |(engine, script), _| engine.eval_ast::<i64>(script).expect("the script runs") as u64,
    )
}
