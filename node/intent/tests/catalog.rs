//! What manifests may declare, and what is said of those that are wrong.

#![expect(clippy::unwrap_used, reason = "a manifest that is wrong is a failed test")]

use std::fmt::Write as _;

use jiff::civil::DateTime;
use weft_intent::{Catalog, Context, DeviceName, Parsed, PhraseFault, Unclear};
use weft_protocol::{device::Kind, graph::Argument, manifest::Manifest, value::Value};

/// One capability `x.do` with an argument of each kind and the given phrases.
fn manifest(agent: &str, phrases: &[&str]) -> Manifest {
    let mut text = format!(
        "name = {agent:?}\nversion = \"1\"\nkind = \"wasm\"\ndescription = \"X.\"\n\n\
         [[capability]]\nname = \"{agent}.do\"\ndescription = \"X.\"\neffect = \"pure\"\noutput = \"thing\"\n\
         phrases = {phrases:?}\n[capability.arguments.properties]\nlist = {{ type = \"array\" }}\n\
         text = {{ type = \"string\" }}\nother = {{ type = \"string\" }}\n\
         count = {{ type = \"integer\" }}\nsize = {{ type = \"number\" }}\n"
    );
    for (name, format) in [
        ("for", "duration"),
        ("at", "date-time"),
        ("day", "date"),
        ("url", "uri"),
        ("file", "path"),
        ("to", "device"),
    ] {
        writeln!(text, "{name} = {{ type = \"string\", format = \"{format}\" }}").unwrap();
    }
    Manifest::parse(&text).unwrap()
}

fn context() -> Context {
    Context {
        now: DateTime::constant(2026, 3, 10, 9, 0, 0, 0),
        devices: vec![
            DeviceName { name: "Ada's Laptop".into(), kind: Kind::Laptop },
            DeviceName { name: "pixel".into(), kind: Kind::Phone },
        ],
        here: "Ada's Laptop".into(),
    }
}

#[test]
fn an_example_is_a_sentence_and_no_pattern() {
    let phrases = ["(show|print) [me] [the] {file} [on {@}]", "see {text}"];
    let (catalog, errors) = Catalog::new(&[manifest("x", &phrases)]);
    assert_eq!(errors, []);
    assert_eq!(catalog.example(&"x.do".parse().unwrap()), Some("show report.pdf"));
    assert_eq!(catalog.example(&"y.do".parse().unwrap()), None);
    // What only makes sense behind another command is no example.
    let (catalog, errors) = Catalog::new(&[manifest("x", &["keep {text=it}", "see {text}"])]);
    assert_eq!(errors, []);
    assert_eq!(catalog.example(&"x.do".parse().unwrap()), Some("see …"));
}

/// The arguments of the only step, `name=value`, and `@device`.
fn arguments(phrases: &[&str], said: &str) -> Option<String> {
    let (catalog, errors) = Catalog::new(&[manifest("x", phrases)]);
    assert_eq!(errors, []);
    let Parsed::Plan(plan) = catalog.parse(said, &context()) else { return None };
    assert_eq!(plan.steps.len(), 1);
    let step = &plan.steps[0];
    let mut shown: Vec<String> = step
        .arguments
        .iter()
        .map(|(name, argument)| match argument {
            Argument::Literal(Value::Text(text)) | Argument::Path(text) => format!("{name}={text}"),
            Argument::Literal(value) => format!("{name}={value}"),
            Argument::Output(step) => format!("{name}<{step}"),
        })
        .collect();
    shown.extend(step.device.iter().map(|device| format!("@{device}")));
    Some(shown.join(" "))
}

#[test]
fn a_slot_takes_what_its_schema_says() {
    let cases = [
        ("run {for}", "run an hour", "for=PT1H"),
        ("run {at}", "run tomorrow at 8", "at=2026-03-11T08:00:00"),
        ("run {day}", "run on friday", "day=2026-03-13"),
        ("run {day}", "run yesterday", "day=2026-03-09"),
        ("run {url}", "run https://a.b/C?d=e.", "url=https://a.b/C?d=e"),
        ("run {file}", "run a.PDF!", "file=a.PDF"),
        ("run {to}", "run my phone", "to=pixel"),
        ("run {to}", "run Ada’s laptop", "to=Ada's Laptop"),
        ("run {@}", "run the laptop", "@Ada's Laptop"),
        (
            "put {text} on {@} clipboard",
            "put hello world on the phone's clipboard",
            "text=hello world @pixel",
        ),
        ("run {count}", "run twenty five", "count=25"),
        ("run {size}", "run 2.5", "size=2.5"),
        ("run {text}", "run Hello  World.", "text=Hello  World."),
        ("run {text=trim}", "run Hello World.", "text=Hello World"),
        ("run {text=all}", "Run Hello", "text=Run Hello"),
        ("turn {text} to {other}", "turn 'go to bed' to dutch", "other=dutch text=go to bed"),
        ("turn {text} to {other}", "turn go to bed to dutch", "other=dutch text=go to bed"),
    ];
    for (phrase, said, expected) in cases {
        assert_eq!(arguments(&[phrase], said).as_deref(), Some(expected), "{phrase}: {said}");
    }
}

#[test]
fn a_slot_takes_nothing_else() {
    let cases = [
        ("run {for}", "run 10"),
        ("run {day}", "run soon"),
        ("run {url}", "run a.b"),
        ("run {file}", "run fast"),
        ("run {to}", "run my toaster"),
        ("run {count}", "run 2.5"),
        ("run {count}", "run"),
        ("run {text}", "run it"),
        ("run {text=plain}", "run a.pdf"),
        ("run {text=it}", "run boats"),
    ];
    for (phrase, said) in cases {
        assert_eq!(arguments(&[phrase], said), None, "{phrase}: {said}");
    }
}

#[test]
fn more_words_of_a_phrase_win_then_more_typed_words() {
    let phrases = ["run {text}", "run fast {other}", "run {for}"];
    assert_eq!(arguments(&phrases, "run slow boats").as_deref(), Some("text=slow boats"));
    assert_eq!(arguments(&phrases, "run fast boats").as_deref(), Some("other=boats"));
    assert_eq!(arguments(&phrases, "run 10 minutes").as_deref(), Some("for=PT10M"));
}

#[test]
fn two_equal_readings_run_nothing() {
    let (catalog, errors) =
        Catalog::new(&[manifest("x", &["run {text}"]), manifest("y", &["run {text}"])]);
    assert_eq!(errors, []);
    let parsed = catalog.parse("run boats", &context());
    let nearest = vec!["run … (x.do)".to_owned(), "run … (y.do)".to_owned()];
    assert_eq!(parsed, Parsed::Unknown { why: Unclear::TwoMeanings, nearest });
}

#[test]
fn a_wrong_phrase_is_told_and_the_others_stay() {
    let phrases = [
        "run {text}",
        "run {speed}",
        "run {list}",
        "{text}",
        "run {text} {other}",
        "run {text} {text}",
        "run {text=loud}",
        "run {for=trim}",
        "go {text<x.do.speed}",
        "run (fast",
        "run {text<gone.away.now}",
    ];
    let (catalog, errors) = Catalog::new(&[manifest("x", &phrases)]);
    let faults: Vec<_> = errors.iter().map(|error| error.fault.clone()).collect();
    assert_eq!(
        faults,
        [
            PhraseFault::UnknownArgument("speed".into()),
            PhraseFault::Unsayable("list".into()),
            PhraseFault::NoWord,
            PhraseFault::TextsTouch,
            PhraseFault::TextsTouch,
            PhraseFault::Option("loud".into()),
            PhraseFault::Option("trim".into()),
            PhraseFault::UnknownArgument("x.do.speed".into()),
            PhraseFault::Unpaired('('),
        ]
    );
    assert_eq!(
        errors[0].to_string(),
        "read the phrase \"run {speed}\" of x.do by x: there is no argument \"speed\""
    );
    assert!(matches!(catalog.parse("run boats", &context()), Parsed::Plan(_)));
}

#[test]
fn a_hostile_manifest_is_bounded() {
    let phrase = "(a|b|c|d) (a|b|c|d) (a|b|c|d) (a|b|c|d) {text}";
    let (_, errors) = Catalog::new(&[manifest("x", &[phrase; 100])]);
    assert_eq!(errors.len(), 100 - 8_192 / 256);
    assert!(errors.iter().all(|error| matches!(error.fault, PhraseFault::TooManyTogether(_))));
}

#[test]
fn without_phrases_nothing_is_known() {
    let (catalog, errors) = Catalog::new(&[]);
    assert_eq!(errors, []);
    let parsed = catalog.parse("note that it rains", &context());
    assert_eq!(parsed, Parsed::Unknown { why: Unclear::NoMatch, nearest: vec![] });
}
