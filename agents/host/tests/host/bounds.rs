//! How much of the machine a device lets its agents have.

use std::time::Duration;

use weft_host::{AgentError, HostBounds};
use weft_protocol::{manifest::Permissions, value::Value};

use crate::{
    guest::{guest, host_within, nothing, task},
    sandbox::{DONE, deaf, run_granted},
};

#[tokio::test]
async fn a_device_grants_no_more_memory_than_it_has_for_agents() {
    let bounds = HostBounds { memory_mib_max: 5, ..HostBounds::default() };
    let (host, _folder) = host_within(bounds, Duration::from_secs(60));
    let granted = |memory_mib| Permissions { memory_mib, ..nothing() };
    // It has 4 MiB from the start.
    let guest = guest("", DONE);
    let (outcome, _) = run_granted(&host, &guest, granted(64), "t.sit").await;
    assert_eq!(outcome, Ok("done".into()));
    let (outcome, _) = run_granted(&host, &guest, granted(3), "t.sit").await;
    assert_eq!(outcome, Err(AgentError::Memory { mib: 3 }), "nor more than its manifest asks for");
    let grows = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    let (found, _) =
        run_granted(&host, &crate::guest::guest("", grows), granted(64), "t.eat").await;
    assert_eq!(found, Err(AgentError::Memory { mib: 5 }), "told as what it got");
}

#[tokio::test]
async fn only_so_many_children_live_at_once() {
    let bounds = HostBounds { children_max: 2, ..HostBounds::default() };
    let (host, _folder) = host_within(bounds, Duration::from_secs(60));
    let waits = guest("", &format!("(call $line (i32.const 16) (i32.const 6)) {DONE}"));
    let (calls, mut requests) = deaf();
    let running: Vec<_> = (0..2)
        .map(|_| {
            let (host, calls) = (host.clone(), calls.clone());
            let step = task(&waits, nothing(), "t.wait");
            tokio::spawn(async move { host.run(step, calls).await })
        })
        .collect();
    let asked = [requests.recv().await.unwrap(), requests.recv().await.unwrap()];
    let third = host.run(task(&waits, nothing(), "t.wait"), calls.clone()).await;
    assert_eq!(third, Err(AgentError::Busy { max: 2 }));
    for request in asked {
        request.reply.send(Ok(Value::Null)).unwrap();
    }
    for step in running {
        step.await.unwrap().unwrap();
    }
    assert_eq!(host.idle_children(), 2);
    // An idle one of another kind makes room.
    let (outcome, _) = run_granted(&host, &guest("", DONE), nothing(), "t.sit").await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(host.idle_children(), 2);
}
