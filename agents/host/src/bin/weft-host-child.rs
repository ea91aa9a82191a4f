//! The program whose children run agents in the tests: it does what the real one does, and has a hole
//! in the first wall.

use std::{
    fs,
    net::{TcpStream, UdpSocket},
    process::{Command, ExitCode},
    sync::OnceLock,
};

use weft_host::{Escape, run_child_with_escape};

/// What came of each attempt before the second wall stood.
static BEFORE: OnceLock<Vec<String>> = OnceLock::new();

const ATTEMPTS: [&str; 4] = ["file", "tcp", "udp", "exec"];

fn main() -> ExitCode {
    let Some(role) = weft_wall::role() else {
        eprintln!("this program is started by the tests of weft-host");
        return ExitCode::FAILURE;
    };
    BEFORE.get_or_init(|| ATTEMPTS.iter().map(|what| attempt(what)).collect());
    run_child_with_escape(&role, Escape(act))
}

/// Says what came of an attempt before the wall, and what comes of it now.
fn act(what: &str) -> String {
    let at = ATTEMPTS.iter().position(|attempt| *attempt == what);
    let before = at.and_then(|at| BEFORE.get()?.get(at)).map_or("unknown", String::as_str);
    format!("before: {before}; now: {}", attempt(what))
}

fn attempt(what: &str) -> String {
    let result = match what {
        "file" => fs::read("/etc/passwd").map(drop),
        // Nobody listens there: being refused by the other end is having reached the network.
        "tcp" => TcpStream::connect("127.0.0.1:1").map(drop),
        "udp" => UdpSocket::bind("127.0.0.1:0").map(drop),
        "exec" => Command::new("/bin/true").status().map(drop),
        other => return format!("{other} is no attempt"),
    };
    match result {
        Ok(()) => "done".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}
