//! `weft trust`: what was said about who belongs.

use serde_json::{Value, json};

use super::{
    Session,
    arguments::TrustAction,
    error::Done,
    node::Node,
    terminal::{items, local_time, short, text},
};

pub(super) async fn run(session: &Session, action: TrustAction) -> Done {
    let terminal = &session.terminal;
    let TrustAction::Log { limit } = action;
    let log = Node::reach(session).await?.read(json!({"ask": "trust-log", "limit": limit})).await?;
    if terminal.is_json() {
        terminal.json(&log)?;
    } else {
        let rows: Vec<_> = items(&log).map(row).collect();
        terminal.table(["TIME", "ID", "WHAT"], &rows)?;
    }
    Ok(None)
}

fn row(statement: &Value) -> [String; 3] {
    let mut what = text(statement, "sentence");
    if statement["verdict"] != "counts" {
        let (verdict, why) = (text(statement, "verdict"), text(statement, "why"));
        what.push_str(&format!(" [{verdict}: {why}]"));
    }
    [local_time(statement, "time"), short(statement, "id"), what]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_does_not_count_says_so() {
        let statement = json!({"id": "mj5nhbzyabc", "sentence": "phone revoked laptop",
            "verdict": "frozen", "why": "phone is suspended"});
        assert_eq!(
            row(&statement)[1..],
            ["mj5nhbzy".to_owned(), "phone revoked laptop [frozen: phone is suspended]".to_owned()]
        );
        let counts = json!({"sentence": "laptop revoked phone", "verdict": "counts", "why": null});
        assert_eq!(row(&counts)[2], "laptop revoked phone");
    }
}
