//! Sentences that people say, and the plans that the agents' own manifests make of them.

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "a fixture that is wrong is a failed test"
)]

use proptest::prelude::*;
use serde_json::Value as Json;
use weft_intent::{Catalog, Parsed, Unclear};
use weft_protocol::{
    graph::{Argument, Plan},
    manifest::{AgentKind, Manifest, Permissions},
    value::Value,
};

use self::sentences::context;

#[path = "../../../tests/fixtures/commands/sentences.rs"]
mod sentences;

const MANIFESTS: [&str; 5] = [
    include_str!("../../../agents/notes/agent.toml"),
    include_str!("../../../agents/timer/agent.toml"),
    include_str!("../../../agents/docs/agent.toml"),
    include_str!("../../../agents/text/agent.toml"),
    include_str!("../../../agents/llm/agent.toml"),
];
const COMMANDS: &str = include_str!("../../../tests/fixtures/commands/commands.jsonl");
const MORE: &str = include_str!("../../../tests/fixtures/commands/more.jsonl");

#[test]
fn shared_sentences_yield_their_plan_or_none() {
    let counts = check(COMMANDS);
    assert_eq!((counts.planned, counts.unknown), (20, 30), "of the 50 shared sentences");
}

#[test]
fn our_sentences_yield_their_plan_or_none() {
    let counts = check(MORE);
    assert!(counts.planned >= 300, "{} sentences with a plan", counts.planned);
    assert!(counts.unknown >= 180, "{} sentences without", counts.unknown);
}

#[test]
fn the_agents_ask_for_what_they_need_and_no_more() {
    let asked: Vec<_> = manifests()
        .into_iter()
        .map(|manifest| {
            let Permissions { documents_read, documents_write, timers, .. } = manifest.permissions;
            (
                manifest.name,
                manifest.kind,
                [documents_read, documents_write].concat().join(" "),
                timers,
            )
        })
        .collect();
    let wasm = |name: &str, documents: &str, timers| {
        (name.into(), AgentKind::Wasm, documents.into(), timers)
    };
    assert_eq!(
        asked,
        [
            wasm("notes", "note note", false),
            wasm("timer", "", true),
            wasm("docs", "", false),
            wasm("text", "", false),
            ("llm".into(), AgentKind::Builtin, String::new(), false),
        ]
    );
}

#[test]
fn an_output_feeds_the_step_that_asks_for_it() {
    let cases = [
        ("summarize report.pdf and note it", vec!["path", "text<1", "text<2"]),
        ("read report.pdf then summarize it and note that", vec!["path", "text<1", "text<2"]),
        ("summarize a.pdf and summarize b.pdf", vec!["path", "text<1", "path", "text<3"]),
        (
            "read a.pdf and ask the model what time it is and note the answer",
            vec!["path", "prompt", "text<2"],
        ),
        (
            "summarize a.pdf, then read b.pdf and note the summary",
            vec!["path", "text<1", "path", "text<2"],
        ),
        ("read report.pdf and make a note", vec!["path", "text<1"]),
        ("read report.pdf and make a summary", vec!["path", "text<1"]),
        ("save a summary of report.pdf as a note", vec!["path", "text<1", "text<2"]),
    ];
    for (said, expected) in cases {
        let show = |(name, argument): (&String, &Argument)| match argument {
            Argument::Output(step) => format!("{name}<{step}"),
            Argument::Literal(_) | Argument::Path(_) => name.clone(),
        };
        let plan = plan(said);
        let shown: Vec<_> =
            plan.steps.iter().flat_map(|step| step.arguments.iter().map(show)).collect();
        assert_eq!(shown, expected, "{said}");
    }
}

#[test]
fn then_waits_and_and_does_not() {
    let after =
        |said: &str| plan(said).steps[1].after.iter().map(|step| step.0).collect::<Vec<_>>();
    assert_eq!(after("list my notes then list my timers"), [1]);
    assert_eq!(after("list my notes, and then list my timers"), [1]);
    assert_eq!(after("list my notes and list my timers"), [0_u16; 0]);
    assert_eq!(
        after("read report.pdf then summarize it"),
        [0_u16; 0],
        "its argument says so already"
    );
}

#[test]
fn a_device_binds_the_last_step_of_its_command() {
    let devices = |said: &str| {
        let steps = plan(said).steps;
        steps.into_iter().map(|step| step.device.unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(devices("summarize report.pdf on the server"), ["", "server"]);
    assert_eq!(devices("summarize report.pdf on the server and note it"), ["", "server", ""]);
    assert_eq!(devices("summarize report.pdf and note it on my phone"), ["", "", "phone"]);
}

#[test]
fn a_step_says_its_effect_and_what_it_may_call() {
    let plan = plan("summarize report.pdf and note it");
    let shown: Vec<_> = plan
        .steps
        .iter()
        .map(|step| {
            (step.effect.word(), step.may_call.iter().map(ToString::to_string).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("read-only", vec![]),
            ("read-only", vec!["llm.generate".to_owned()]),
            ("idempotent", vec![])
        ]
    );
}

#[test]
fn shows_the_commands_that_are_most_alike() {
    let nearest = |said: &str| match catalog().parse(said, &context()) {
        Parsed::Unknown { nearest, .. } => nearest,
        Parsed::Plan(plan) => panic!("{said}: {plan:?}"),
    };
    for (said, first) in [
        ("sumarize report.pdf", "summarize report.pdf"),
        ("summarise raport", "summarize report.pdf"),
        ("set a tiemr for 10 minutes", "set a timer for 10 minutes"),
        ("cancel the timer", "cancel the … timer"),
        ("list my nots", "list my notes"),
        ("find my nots about boats", "find my notes about …"),
        ("ask the modle why the sky is blue", "ask the model …"),
    ] {
        let shown = nearest(said);
        assert_eq!(shown.first().map(String::as_str), Some(first), "{said}: {shown:?}");
    }
    assert!(nearest("timer").iter().all(|example| example.contains("timer")));
    assert_eq!(nearest("asdf qwer zxcv").len(), 3);
}

#[test]
fn every_example_is_a_command() {
    for said in [
        "asdf",
        "note",
        "timer",
        "summarize",
        "read",
        "ask",
        "cancel",
        "find",
        "list",
        "explain",
        "alarm",
    ] {
        let Parsed::Unknown { nearest, .. } = catalog().parse(said, &context()) else {
            panic!("{said}")
        };
        for example in nearest {
            let parsed = catalog().parse(&example.replace('…', "boats"), &context());
            assert!(matches!(parsed, Parsed::Plan(_)), "{example}");
        }
    }
}

#[test]
fn shows_both_meanings_as_words_that_have_one() {
    let said = "remind me at 18:00 to get up and write down my dreams";
    let Parsed::Unknown { why: Unclear::TwoMeanings, nearest } = catalog().parse(said, &context())
    else {
        panic!("{said}")
    };
    assert_eq!(
        nearest,
        [
            "remind me at 18:00 to \"get up and write down my dreams\"",
            "remind me at 18:00 to get up, then write down my dreams"
        ]
    );
    assert_eq!(plan(&nearest[0]).steps.len(), 1);
    assert_eq!(plan(&nearest[1]).steps.len(), 2);
}

#[test]
fn without_a_capability_its_phrases_are_gone() {
    let manifests: Vec<_> =
        manifests().into_iter().filter(|manifest| manifest.name != "docs").collect();
    let (catalog, errors) = Catalog::new(&manifests);
    assert_eq!(errors, []);
    let parsed = catalog.parse("summarize report.pdf", &context());
    assert!(matches!(parsed, Parsed::Unknown { .. }), "{parsed:?}");
    let parsed = catalog.parse("summarize this text: it rains", &context());
    assert!(matches!(parsed, Parsed::Plan(_)), "{parsed:?}");
}

#[test]
fn long_words_are_refused_at_once() {
    let text = |count: usize| format!("note that {}", "a".repeat(count - 10));
    assert!(matches!(catalog().parse(&text(2_000), &context()), Parsed::Plan(_)));
    let parsed = catalog().parse(&text(2_001), &context());
    assert!(matches!(parsed, Parsed::Unknown { why: Unclear::TooLong, .. }), "{parsed:?}");
    let reminder = format!("remind me to {} in 5 minutes", "walk on ".repeat(240));
    assert_eq!(plan(&reminder).steps.len(), 1);
    let parsed = catalog().parse(&"list my notes and ".repeat(20), &context());
    assert!(matches!(parsed, Parsed::Unknown { why: Unclear::TooManyParts, .. }), "{parsed:?}");
}

/// Words that lead deep into the phrases.
fn said() -> impl Strategy<Value = String> {
    let words: Vec<String> = COMMANDS
        .lines()
        .chain(MORE.lines())
        .flat_map(|line| {
            let case: Json = serde_json::from_str(line).unwrap();
            case["say"].as_str().unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let mixed =
        prop::collection::vec(prop::sample::select(words), 0..30).prop_map(|words| words.join(" "));
    let sentences: Vec<String> = MORE
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).unwrap()["say"].as_str().unwrap().to_owned())
        .collect();
    let spliced = (
        prop::sample::select(sentences.clone()),
        "[a-z'\"“”:,.; ]{0,6}",
        prop::sample::select(sentences),
    )
        .prop_map(|(left, between, right)| format!("{left}{between}{right}"));
    prop_oneof![mixed, spliced, ".{0,200}", "[0-9:.apm' \"-]{0,40}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is said: no panic; a plan is a graph whose steps lack nothing that they need; without
    /// a plan at most three commands are shown.
    #[test]
    fn any_words_give_a_whole_plan_or_none(said in said()) {
        CATALOG.with(|(manifests, catalog)| match catalog.parse(&said, &context()) {
            Parsed::Plan(plan) => {
                prop_assert!(!plan.steps.is_empty());
                prop_assert_eq!(Plan::new(plan.route, plan.steps.clone()), Ok(plan.clone()));
                for step in &plan.steps {
                    let capability =
                        manifests.iter().find_map(|manifest| manifest.capability(&step.capability)).unwrap();
                    let schema = &capability.arguments;
                    for required in &schema.required {
                        prop_assert!(step.arguments.contains_key(required), "{step:?}");
                    }
                    for (name, argument) in &step.arguments {
                        prop_assert!(schema.properties.contains_key(name), "{step:?}");
                        if let Argument::Literal(Value::Text(text)) | Argument::Path(text) = argument {
                            prop_assert!(!text.trim().is_empty(), "{step:?}");
                        }
                    }
                }
                Ok(())
            }
            Parsed::Unknown { nearest, .. } => {
                prop_assert!((1..=3).contains(&nearest.len()));
                Ok(())
            }
        })?;
    }

    /// A note's text is in the sentence, as it was said.
    #[test]
    fn a_text_is_what_was_said(text in "Zoë [A-Z][a-zA-Zé’]{2,9}( [A-Z0-9][a-zA-Z]{3,9}){0,6}") {
        let plan = plan(&format!("note that {text}"));
        prop_assert_eq!(&plan.steps[0].arguments["text"], &Argument::Literal(Value::Text(text)));
    }
}

thread_local! {
    static CATALOG: (Vec<Manifest>, Catalog) = (manifests(), catalog());
}

/// How many sentences have a plan that can be made with our manifests, and how many can't.
struct Counts {
    planned: usize,
    unknown: usize,
}

fn check(lines: &str) -> Counts {
    let catalog = catalog();
    let mut counts = Counts { planned: 0, unknown: 0 };
    let mut wrong = Vec::new();
    for case in sentences::read(lines, &manifests()).unwrap() {
        let said = case["say"].as_str().unwrap();
        let steps = case["plan"].as_array().unwrap();
        let possible = !steps.is_empty();
        let parsed = catalog.parse(said, &context());
        let fault = match (&parsed, possible) {
            (Parsed::Plan(plan), true) => difference(plan, steps, case["on"].as_str()),
            (Parsed::Unknown { nearest, .. }, false) => {
                nearest.is_empty().then(|| "shows nothing".into())
            }
            (Parsed::Plan(_), false) => Some("has a plan".into()),
            (Parsed::Unknown { .. }, true) => Some("has no plan".into()),
        };
        if let Some(fault) = fault {
            wrong.push(format!("{said:?}: {fault}: {parsed:?}"));
        }
        *(if possible { &mut counts.planned } else { &mut counts.unknown }) += 1;
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    counts
}

/// How the plan differs from the steps of a line, by the rules of the fixtures' README; no step more.
fn difference(plan: &Plan, steps: &[Json], on: Option<&str>) -> Option<String> {
    if plan.steps.len() != steps.len() {
        return Some(format!("{} steps", plan.steps.len()));
    }
    for (step, expected) in plan.steps.iter().zip(steps) {
        if expected["capability"] != step.capability.as_str() {
            return Some(format!("step {} is {}", step.index, step.capability));
        }
        for (name, value) in expected["args"].as_object().unwrap() {
            let found = match step.arguments.get(name) {
                Some(Argument::Literal(Value::Text(text)) | Argument::Path(text)) => {
                    Json::from(text.as_str())
                }
                Some(Argument::Literal(value)) => Json::from(value),
                Some(Argument::Output(step)) => Json::from(format!("<{step}>")),
                None => return Some(format!("no {name}")),
            };
            let plain = |json: &Json| {
                json.as_str().map_or(json.to_string(), |text| text.trim().to_lowercase())
            };
            if plain(&found) != plain(value) {
                return Some(format!("{name} is {found}"));
            }
        }
        let said = expected["args"].as_object().unwrap();
        let more = step.arguments.iter().find(|(name, argument)| {
            !said.contains_key(*name) && !matches!(argument, Argument::Output(_))
        });
        if let Some((name, _)) = more {
            return Some(format!("{name} was not said"));
        }
    }
    let device = plan.steps.last().and_then(|step| step.device.as_deref());
    (device != on).then(|| format!("on {device:?}"))
}

fn plan(said: &str) -> Plan {
    match CATALOG.with(|(_, catalog)| catalog.parse(said, &context())) {
        Parsed::Plan(plan) => plan,
        unknown @ Parsed::Unknown { .. } => panic!("{said}: {unknown:?}"),
    }
}

fn manifests() -> Vec<Manifest> {
    MANIFESTS.iter().map(|text| Manifest::parse(text).unwrap()).collect()
}

fn catalog() -> Catalog {
    let (catalog, errors) = Catalog::new(&manifests());
    assert!(errors.is_empty(), "{errors:?}");
    catalog
}
