//! The rules' own tests, run by the engine that the node embeds.
//!
//! A test is a rule of a `_test` package whose name begins with `test_`; it passes if it is true.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;

use crate::{
    EMBEDDED, EMBEDDED_DATA, EMBEDDED_TESTS,
    evaluator::{RulesError, engine},
};

/// What came of the tests.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Tests that passed, as `package.name`.
    pub passed: Vec<String>,
    /// Tests that did not.
    pub failed: Vec<String>,
    /// Lines of rules that no test reached, as `module:line`.
    pub uncovered: Vec<String>,
}

/// Runs the tests of the rules that the program carries.
///
/// # Errors
///
/// A module cannot be read.
pub fn run_embedded() -> Result<Report, RulesError> {
    run(EMBEDDED, EMBEDDED_TESTS, EMBEDDED_DATA)
}

/// Runs `tests` against `rules`.
///
/// # Errors
///
/// A module cannot be read, or a package of tests cannot be evaluated.
pub fn run(
    rules: &[(&str, &str)],
    tests: &[(&str, &str)],
    data: &str,
) -> Result<Report, RulesError> {
    let modules = [rules, tests].concat();
    let mut engine = engine(&modules, data)?;
    engine.set_enable_coverage(true);
    let mut report = Report::default();
    for (name, text) in tests {
        let package = text.lines().find_map(|line| line.strip_prefix("package ")).unwrap_or("");
        let results =
            engine.eval_query(format!("data.{}", package.trim()), false).map_err(|error| {
                RulesError::Module { name: (*name).to_owned(), why: error.to_string() }
            })?;
        let results = results
            .result
            .first()
            .and_then(|result| result.expressions.first())
            .and_then(|expression| expression.value.as_object().ok().cloned())
            .unwrap_or_default();
        for test in declared(text) {
            let passed = results.get(&Value::from(test)) == Some(&Value::Bool(true));
            let list = if passed { &mut report.passed } else { &mut report.failed };
            list.push(format!("{}.{test}", package.trim()));
        }
    }
    let coverage =
        engine.get_coverage_report().map_err(|error| RulesError::Compile(error.to_string()))?;
    let of_rules: BTreeMap<&str, &str> = rules.iter().copied().collect();
    for file in &coverage.files {
        if of_rules.contains_key(file.path.as_str()) {
            let lines = file.not_covered.iter().map(|line| format!("{}:{line}", file.path));
            report.uncovered.extend(lines);
        }
    }
    Ok(report)
}

/// The names of the tests that a module declares.
fn declared(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter(|line| line.starts_with("test_"))
        .filter_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_').next())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_rules_pass_their_tests_and_each_rule_is_reached() {
        let report = run_embedded().unwrap();
        assert_eq!(report.failed, Vec::<String>::new());
        assert_eq!(report.uncovered, Vec::<String>::new());
        assert!(report.passed.len() >= 15, "{:?}", report.passed);
    }

    #[test]
    fn a_test_that_is_not_true_fails_and_an_unreached_rule_is_named() {
        let rules = [(
            "r.rego",
            "package weft.authz\nyes := 1 if input.x == 2\nno if {\n\tinput.x == 4\n\tinput.y == 5\n}",
        )];
        let tests = [(
            "t.rego",
            "package t\nimport data.weft.authz\ntest_yes if authz.yes == 1 with input as {\"x\": 2}\ntest_wrong if authz.yes == 1 with input as {\"x\": 3}",
        )];
        let report = run(&rules, &tests, "{}").unwrap();
        assert_eq!(report.passed, ["t.test_yes"]);
        assert_eq!(report.failed, ["t.test_wrong"]);
        assert!(report.uncovered.contains(&"r.rego:5".to_owned()), "{:?}", report.uncovered);
    }
}
