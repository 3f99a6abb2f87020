//! A web application: pages rendered from structures.

use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;

use super::parallel::parallel;
use crate::suite::Job;

const PAGE: &str = r#"<html><title>{{ title|title }}</title><ul>
{%- for item in items if item.price > 3 %}
<li class="{{ loop.cycle('odd', 'even') }}">{{ loop.index }}. {{ item.name|upper|escape }}:
{{ "%.2f"|format(item.price) }} ({{ item.tags|join(", ") }})
{%- for key, value in item.fields|dictsort %}<b>{{ key }}</b>={{ value }}{% endfor %}</li>
{%- endfor %}
</ul>{{ items|map(attribute="name")|sort|first }}</html>"#;

#[derive(Serialize)]
struct Item {
    name: String,
    price: f64,
    tags: Vec<String>,
    fields: std::collections::BTreeMap<String, u64>,
}

pub fn run(job: &Job) -> u64 {
    let environment = || {
        let mut environment = Environment::new();
        environment
            .add_template("page", PAGE)
            .expect("a valid template");
        environment
    };
    parallel(
        job.threads,
        job.portion(600),
        environment,
        |environment, index| {
            let items: Vec<Item> = (0..60).map(|place| item(index * 60 + place)).collect();
            let page = environment.get_template("page").expect("added above");
            let context = context! { title => "the shop", items => Value::from(Serde(&items)) };
            page.render(context)
                .expect("the template fits the items")
                .len() as u64
        },
    )
}

fn item(index: usize) -> Item {
    Item {
        name: format!("item <{}>", index * 7919 % 1000),
        price: (index % 97) as f64 / 7.0,
        tags: (0..index % 5).map(|tag| format!("tag{tag}")).collect(),
        fields: (0..6)
            .map(|field| (format!("field{field}"), (index * field) as u64))
            .collect(),
    }
}
