//! Children that end when they should not, and children that should have ended. Alone in its process,
//! so that its children are those of one test after the other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "host/guest.rs"]
mod guest;

use std::{fs, time::Duration};

use guest::{guest, host, nothing, task};
use tokio::sync::mpsc;
use weft_host::AgentError;
use weft_protocol::value::Value;

#[tokio::test]
async fn a_killed_child_costs_its_own_step_only() {
    let (host, _folder) = host();
    let guest = guest(
        "",
        "(call $line (i32.const 16) (i32.const 6)) (call $give (i32.const 16) (i32.const 6))",
    );

    let (calls, mut requests) = mpsc::channel(1);
    let running = tokio::spawn({
        let (host, task) = (host.clone(), task(&guest, nothing(), "t.run"));
        async move { host.run(task, calls).await }
    });
    let request = requests.recv().await.unwrap();
    let [child] = children()[..] else { panic!("{:?}", children()) };
    // SAFETY: a bare call; the process is this test's own child and is not waited for yet.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
    // Whether anybody still waits for this answer is chance.
    request.reply.send(Ok(Value::Null)).ok();
    let outcome = running.await.unwrap();
    let Err(AgentError::Died { reason }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("signal: 9"), "{reason}");

    let (calls, mut requests) = mpsc::channel(1);
    let answering = tokio::spawn(async move {
        let request: weft_host::HostRequest = requests.recv().await.unwrap();
        request.reply.send(Ok(Value::Null)).unwrap();
    });
    let outcome = host.run(task(&guest, nothing(), "t.run"), calls).await;
    assert_eq!(outcome, Ok(Value::from("done")));
    answering.await.unwrap();

    // A step that nobody waits for any more takes its child with it, and so does the host.
    let (calls, mut requests) = mpsc::channel(1);
    let abandoned = tokio::spawn({
        let (host, task) = (host.clone(), task(&guest, nothing(), "t.run"));
        async move { host.run(task, calls).await }
    });
    let _request = requests.recv().await.unwrap();
    abandoned.abort();
    drop(host);
    while !children().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The processes that this one started and that have not ended.
fn children() -> Vec<libc::pid_t> {
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|process| process.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &libc::pid_t| {
        // After the name, which ends with the last bracket: state, parent.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit(") ").next().unwrap_or_default().to_owned();
        let mut fields = after.split(' ');
        fields.next() != Some("Z") && fields.next() == Some(&own)
    })
    .collect()
}
