//! An optimiser: equality saturation of arithmetic expressions.

use std::time::Duration;

use egg::{AstSize, Extractor, RecExpr, Rewrite, Runner, SymbolLang, rewrite};

use super::parallel::parallel;
use crate::suite::Job;

pub fn run(job: &Job) -> u64 {
    let inputs: Vec<RecExpr<SymbolLang>> = (0..job.portion(64)).map(expression).collect();
    parallel(job.threads, inputs.len(), rules, |rules, index| {
        let runner = Runner::default()
            .with_expr(&inputs[index])
            .with_iter_limit(7)
            .with_node_limit(usize::MAX)
            // Limits of time would make the result depend on the allocator.
            .with_time_limit(Duration::from_secs(3600))
            .run(&*rules);
        let (cost, _) = Extractor::new(&runner.egraph, AstSize).find_best(runner.roots[0]);
        (cost + runner.egraph.total_size()) as u64
    })
}

fn rules() -> Vec<Rewrite<SymbolLang, ()>> {
    vec![
        rewrite!("commute-add"; "(+ ?a ?b)" => "(+ ?b ?a)"),
        rewrite!("commute-mul"; "(* ?a ?b)" => "(* ?b ?a)"),
        rewrite!("assoc-add"; "(+ ?a (+ ?b ?c))" => "(+ (+ ?a ?b) ?c)"),
        rewrite!("assoc-mul"; "(* ?a (* ?b ?c))" => "(* (* ?a ?b) ?c)"),
        rewrite!("distribute"; "(* ?a (+ ?b ?c))" => "(+ (* ?a ?b) (* ?a ?c))"),
        rewrite!("factor"; "(+ (* ?a ?b) (* ?a ?c))" => "(* ?a (+ ?b ?c))"),
        rewrite!("add-zero"; "(+ ?a 0)" => "?a"),
        rewrite!("mul-one"; "(* ?a 1)" => "?a"),
        rewrite!("mul-zero"; "(* ?a 0)" => "0"),
        rewrite!("sub-self"; "(- ?a ?a)" => "0"),
        rewrite!("sub-add"; "(- ?a ?b)" => "(+ ?a (* -1 ?b))"),
    ]
}

fn expression(index: usize) -> RecExpr<SymbolLang> {
    let name = ["x", "y", "z", "w"][index % 4];
    format!("(- (* (+ {name} 1) (+ {name} (+ b{index} 0))) (+ (* {name} {name}) (* c (+ d 1))))")
        .parse()
        .expect("a valid expression")
}
