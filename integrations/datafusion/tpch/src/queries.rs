//! The 22 queries with the parameters for which answers are published.

use tpchgen::q_and_a::queries;

/// How many there are.
pub const QUERIES: usize = 22;

/// The parameters `:1`, `:2` and so on of each query, and how many rows it is to return at most.
const PARAMETERS: [(&[&str], Option<usize>); QUERIES] = [
    (&["90"], None),
    (&["15", "BRASS", "EUROPE"], Some(100)),
    (&["BUILDING", "1995-03-15"], Some(10)),
    (&["1993-07-01"], None),
    (&["ASIA", "1994-01-01"], None),
    (&["1994-01-01", "0.06", "24"], None),
    (&["FRANCE", "GERMANY"], None),
    (&["BRAZIL", "AMERICA", "ECONOMY ANODIZED STEEL"], None),
    (&["green"], None),
    (&["1993-10-01"], Some(20)),
    (&["GERMANY", "0.0001"], None),
    (&["MAIL", "SHIP", "1994-01-01"], None),
    (&["special", "requests"], None),
    (&["1995-09-01"], None),
    (&["1996-01-01"], None),
    (
        &[
            "Brand#45",
            "MEDIUM POLISHED",
            "49",
            "14",
            "23",
            "45",
            "19",
            "3",
            "36",
            "9",
        ],
        None,
    ),
    (&["Brand#23", "MED BOX"], None),
    (&["300"], Some(100)),
    (&["Brand#12", "Brand#23", "Brand#34", "1", "10", "20"], None),
    (&["forest", "1994-01-01", "CANADA"], None),
    (&["SAUDI ARABIA"], Some(100)),
    (&["13", "31", "23", "29", "30", "18", "17"], None),
];

/// The SQL of query `number`, from 1 to 22.
///
/// # Panics
/// If there is none of that number.
#[must_use]
pub fn query(number: usize) -> String {
    let (parameters, limit) = PARAMETERS[number - 1];
    let template = queries::query(number as i32).expect("there is one of each number");
    let mut sql = template.trim().trim_end_matches(';').to_string();
    if number == 15 {
        sql = with_view(&sql);
    }
    // The last first: `:1` is the beginning of `:10`.
    for (place, parameter) in parameters.iter().enumerate().rev() {
        sql = sql.replace(&format!(":{}", place + 1), parameter);
    }
    // The precision of an interval is what the standard asks for and no more.
    sql = sql.replace(" day (3)", " day");
    match limit {
        Some(limit) => format!("{sql}\nlimit {limit}"),
        None => sql,
    }
}

/// Query 15 creates a view, selects from it and drops it: here it is a part of one statement.
fn with_view(sql: &str) -> String {
    let mut parts = sql.replace("revenue:s", "revenue");
    parts = parts.replacen("create view revenue (supplier_no, total_revenue) as", "", 1);
    let mut parts = parts.split(';');
    let (view, select) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    format!("with revenue (supplier_no, total_revenue) as ({view})\n{select}")
}

#[cfg(test)]
mod tests {
    use super::{QUERIES, query};

    #[test]
    fn every_parameter_is_filled_in() {
        for number in 1..=QUERIES {
            let sql = query(number);
            assert!(!sql.contains(':') && !sql.contains(';'), "{number}: {sql}");
        }
    }
}
