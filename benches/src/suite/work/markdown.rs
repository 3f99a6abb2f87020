//! A documentation site: markdown to HTML, then a tree to pick from.

use pulldown_cmark::{Options, Parser, html};
use scraper::{Html, Selector};

use super::parallel::parallel;
use crate::suite::Job;

pub fn run(job: &Job) -> u64 {
    let texts = job.corpus.markdown();
    let texts = texts.portion(job.divisor, 1);
    let selector = || Selector::parse("h2, li > p, a[href], code").expect("a valid selector");
    parallel(job.threads, texts.len(), selector, |selector, index| {
        let mut page = String::new();
        html::push_html(&mut page, Parser::new_ext(texts[index], Options::all()));
        let tree = Html::parse_document(&page);
        let picked: Vec<String> = tree
            .select(selector)
            .map(|element| element.text().collect())
            .collect();
        picked.iter().map(|text| text.len() as u64).sum::<u64>() + picked.len() as u64
    })
}
