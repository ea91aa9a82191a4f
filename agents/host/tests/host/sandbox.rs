//! Guests that do what they should not, and the bounds that hold them.

use std::{collections::BTreeSet, fs, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;
use weft_host::{AgentError, Host, HostRequest};
use weft_protocol::{manifest::Permissions, value::Value};

use crate::{
    guest::{guest, host, host_that_waits, nothing, task},
    node::Node,
};

/// A body that ends well.
pub(crate) const DONE: &str = "(call $give (i32.const 16) (i32.const 6))";

/// Runs a guest; a node answers its calls.
async fn run(host: &Host, component: &Bytes, capability: &str) -> Result<Value, AgentError> {
    run_granted(host, component, nothing(), capability).await.0
}

pub(crate) async fn run_granted(
    host: &Host,
    component: &Bytes,
    permissions: Permissions,
    capability: &str,
) -> (Result<Value, AgentError>, Node) {
    let (calls, serving) = Node::default().serve();
    let outcome = host.run(task(component, permissions, capability), calls).await;
    (outcome, serving.await.unwrap())
}

/// Nobody answers calls; the first is waited for and kept.
pub(crate) fn deaf() -> (mpsc::Sender<HostRequest>, mpsc::Receiver<HostRequest>) {
    mpsc::channel(1)
}

#[tokio::test]
async fn a_loop_ends_when_its_processor_time_is_used_up() {
    let (host, _folder) = host();
    let guest = guest("", "(loop (br 0)) unreachable");
    let permissions = Permissions { processor_ms: 100, ..nothing() };
    let (outcome, _) = run_granted(&host, &guest, permissions, "t.loop").await;
    assert_eq!(outcome, Err(AgentError::Processor { millis: 100 }));
}

#[tokio::test]
async fn waiting_for_the_node_uses_no_processor_time() {
    let (host, _folder) = host();
    let guest = guest("", &format!("(call $line (i32.const 16) (i32.const 6)) {DONE}"));
    let permissions = Permissions { processor_ms: 50, ..nothing() };
    let (calls, mut requests) = deaf();
    let slow = tokio::spawn(async move {
        let request = requests.recv().await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        request.reply.send(Ok(Value::Null)).unwrap();
    });
    let outcome = host.run(task(&guest, permissions, "t.wait"), calls).await;
    assert_eq!(outcome, Ok(Value::from("done")));
    slow.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_the_step_at_its_deadline() {
    let (host, _folder) = host();
    let guest = guest("", &format!("(call $line (i32.const 16) (i32.const 6)) {DONE}"));
    let (calls, mut requests) = deaf();
    let mut task = task(&guest, nothing(), "t.wait");
    task.deadline = Duration::from_millis(300);
    let outcome = host.run(task, calls).await;
    assert_eq!(outcome, Err(AgentError::Deadline(Duration::from_millis(300))));
    assert!(requests.recv().await.unwrap().reply.is_closed());
    assert_eq!(host.idle_children(), 0, "its child is not used again");
}

#[tokio::test]
async fn memory_is_bounded() {
    let (host, _folder) = host();
    let grows = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    let granted = Permissions { memory_mib: 8, ..nothing() };
    for (what, head, body) in [
        ("memory that grows", "", grows),
        (
            "a table that grows",
            "(table $t 1 funcref)",
            "(loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 65536)) (i32.const -1)))) unreachable",
        ),
    ] {
        let (outcome, _) = run_granted(&host, &guest(head, body), granted.clone(), "t.eat").await;
        assert_eq!(outcome, Err(AgentError::Memory { mib: 8 }), "{what}");
    }
    // It has 4 MiB from the start.
    let granted = Permissions { memory_mib: 3, ..nothing() };
    let (outcome, _) = run_granted(&host, &guest("", DONE), granted, "t.eat").await;
    assert_eq!(outcome, Err(AgentError::Memory { mib: 3 }), "memory that it begins with");
}

#[tokio::test]
async fn the_run_after_a_trap_is_as_good_as_the_first() {
    let (host, _folder) = host();
    // A global that would tell the second run of the first.
    let guest = guest(
        "(global $was (mut i32) (i32.const 0))",
        &format!(
            "(if (global.get $was) (then unreachable))
             (global.set $was (i32.const 1))
             (if (i32.eq (local.get 1) (i32.const 6)) (then unreachable))
             {DONE}"
        ),
    );
    for _ in 0..2 {
        assert_eq!(run(&host, &guest, "t.run").await, Ok(Value::from("done")));
        let trap = run(&host, &guest, "t.trap").await;
        let Err(AgentError::Trap { reason }) = trap else { panic!("{trap:?}") };
        assert!(reason.contains("unreachable"), "{reason}");
    }
    let deep = crate::guest::guest("(func $deep (call $deep))", "(call $deep) unreachable");
    let trap = run(&host, &deep, "t.deep").await;
    let Err(AgentError::Trap { reason }) = trap else { panic!("{trap:?}") };
    assert!(reason.contains("stack"), "{reason}");
}

#[tokio::test]
async fn an_import_beyond_the_grants_is_named() {
    let (host, _folder) = host();
    let secrets = r#"(import "weft:test/secrets" "read" (func $read (param i32 i32 i32)))"#;
    let timers = r#"(import "weft:agent/timers@0.1.0" "list" (func $list (param i32)))"#;
    let uses = |call: &str| format!("{call} {DONE}");
    let cases = [
        (
            secrets,
            uses("(call $read (i32.const 0) (i32.const 0) (i32.const 0))"),
            "weft:test/secrets",
        ),
        (timers, uses("(call $list (i32.const 0))"), "weft:agent/timers@0.1.0"),
    ];
    for (head, body, interface) in cases {
        let outcome = run(&host, &guest(head, &body), "t.run").await;
        assert_eq!(outcome, Err(AgentError::Import { interface: interface.to_owned() }));
    }
}

#[tokio::test]
async fn bytes_that_are_no_agent_are_refused() {
    let (host, _folder) = host();
    let not_an_agent = wat::parse_str("(component)").unwrap();
    for bytes in [b"nonsense".to_vec(), Vec::new(), not_an_agent, b"\0asm\x01\0\0\0".to_vec()] {
        let outcome = run(&host, &bytes.into(), "t.run").await;
        assert!(matches!(outcome, Err(AgentError::Component { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_output_is_bounded_and_is_json() {
    let (host, _folder) = host();
    let cases = [
        ("(call $give (i32.const 65536) (i32.const 2000000))", "of 2000000 bytes is too large"),
        ("(call $give (i32.const 17) (i32.const 3))", "is no JSON"),
        ("(call $give (i32.const 200) (i32.const 80))", "is not taken"),
    ];
    let nested = format!(r#"(data (i32.const 200) "{}{}")"#, "[".repeat(40), "]".repeat(40));
    for (body, expected) in cases {
        let outcome = run(&host, &guest(&nested, body), "t.run").await;
        let Err(AgentError::Output { reason }) = outcome else { panic!("{outcome:?}") };
        assert!(reason.starts_with(expected), "{reason}");
    }
    let broken =
        guest(r#"(data (i32.const 200) "\"\ff\"")"#, "(call $give (i32.const 200) (i32.const 3))");
    let outcome = run(&host, &broken, "t.run").await;
    assert!(matches!(outcome, Err(AgentError::Trap { .. })), "{outcome:?}");
    let outside = guest("", "(call $give (i32.const -8) (i32.const 6))");
    let outcome = run(&host, &outside, "t.run").await;
    assert!(matches!(outcome, Err(AgentError::Trap { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_log_has_an_end() {
    let (host, _folder) = host();
    let talks =
        guest("", "(loop (call $line (i32.const 16) (i32.const 200000)) (br 0)) unreachable");
    let permissions = Permissions { processor_ms: 3_000, ..nothing() };
    let (outcome, node) = run_granted(&host, &talks, permissions, "t.talk").await;
    assert!(matches!(outcome, Err(AgentError::Processor { .. })), "{outcome:?}");
    assert_eq!(node.lines.len(), 1_000);
    assert!(node.lines.iter().all(|line| line.len() <= 4_096));
}

#[tokio::test]
async fn host_calls_have_an_end() {
    let (host, _folder) = host();
    let timers = r#"(import "weft:agent/timers@0.1.0" "list" (func $list (param i32)))"#;
    let asks = guest(timers, "(loop (call $list (i32.const 3000)) (br 0)) unreachable");
    let permissions = Permissions { timers: true, processor_ms: 60_000, ..nothing() };
    let (outcome, _) = run_granted(&host, &asks, permissions, "t.ask").await;
    assert_eq!(outcome, Err(AgentError::Calls { max: 10_000 }));
}

#[tokio::test]
async fn behind_the_first_wall_stands_a_second() {
    let (host, _folder) = host();
    let head = r#"
        (import "weft:test/escape" "act" (func $act (param i32 i32 i32)))
        (data (i32.const 300) "file tcp  udp  exec ")
        (data (i32.const 400) "\"") (data (i32.const 401) "file tcp udp exec")
    "#;
    // What the escape says is put between quotes and given back.
    let body = |at: usize, len: usize| {
        format!(
            r#"(local $from i32) (local $len i32)
            (call $act (i32.const {at}) (i32.const {len}) (i32.const 3000))
            (local.set $from (i32.load (i32.const 3000)))
            (local.set $len (i32.load (i32.const 3004)))
            (memory.copy (i32.const 401) (local.get $from) (local.get $len))
            (i32.store8 (i32.add (i32.const 401) (local.get $len)) (i32.const 34))
            (call $give (i32.const 400) (i32.add (local.get $len) (i32.const 2)))"#
        )
    };
    let cases = [
        (300, 4, "before: done; now: PermissionDenied"),
        (305, 3, "before: ConnectionRefused; now: PermissionDenied"),
        (310, 3, "before: done; now: PermissionDenied"),
        (315, 4, "before: done; now: PermissionDenied"),
    ];
    for (at, len, expected) in cases {
        assert_eq!(
            run(&host, &guest(head, &body(at, len)), "t.act").await,
            Ok(Value::from(expected))
        );
    }
}

#[tokio::test]
async fn wasi_is_there_and_empty() {
    let (host, _folder) = host();
    let head = r#"
        (import "wasi:cli/environment@0.2.6" "get-arguments" (func $arguments (param i32)))
        (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $in (param i64) (result i32)))
        (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))
        (import "wasi:io/poll@0.2.6" "[resource-drop]pollable" (func $drop (param i32)))
    "#;
    let body = format!(
        "(local $timer i32)
        (call $arguments (i32.const 3000))
        (if (i32.load (i32.const 3004)) (then unreachable))
        (local.set $timer (call $in (i64.const 20000000)))
        (call $block (local.get $timer))
        (call $drop (local.get $timer))
        {DONE}"
    );
    assert_eq!(run(&host, &guest(head, &body), "t.run").await, Ok(Value::from("done")));
}

#[tokio::test]
async fn code_that_was_tampered_with_is_compiled_anew() {
    let (host, folder) = host_that_waits(Duration::ZERO);
    let guest = guest("", DONE);
    assert_eq!(run(&host, &guest, "t.run").await, Ok(Value::from("done")));
    let files = || {
        let files = fs::read_dir(folder.path()).unwrap();
        files.map(|file| file.unwrap().path()).collect::<BTreeSet<_>>()
    };
    let file = files().pop_first().unwrap();
    let code = fs::read(&file).unwrap();
    let mut tampered = code.clone();
    tampered[code.len() / 2] ^= 1;
    fs::write(&file, &tampered).unwrap();
    while host.idle_children() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(run(&host, &guest, "t.run").await, Ok(Value::from("done")));
    assert_eq!(fs::read(&file).unwrap(), code);
    assert_eq!(files().len(), 1, "nothing else is left behind");
}

#[tokio::test]
async fn steps_run_side_by_side_and_call_each_other() {
    let (host, _folder) = host();
    let calls = guest("", &format!("(call $line (i32.const 16) (i32.const 6)) {DONE}"));
    // The node answers each call by running the same agent once more, three levels deep.
    fn nested(host: Host, component: Bytes, depth: u32) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            let (calls, mut requests) = deaf();
            let running = host.run(task(&component, nothing(), "t.call"), calls);
            let answering = async {
                let request = requests.recv().await.unwrap();
                if depth > 0 {
                    nested(host.clone(), component.clone(), depth - 1).await.unwrap();
                }
                request.reply.send(Ok(Value::Null)).unwrap();
            };
            let (outcome, ()) = tokio::join!(running, answering);
            assert_eq!(outcome, Ok(Value::from("done")));
        })
    }
    let tops: Vec<_> = (0..3).map(|_| nested(host.clone(), calls.clone(), 3)).collect();
    for top in tops {
        top.await.unwrap();
    }
    assert!((4..=12).contains(&host.idle_children()), "{}", host.idle_children());
}
