//! A child for the tests of the wall: does as it is told, and says what the kernel answered.
//!
//! Each frame is a word and an optional argument; the answer is `ok` and what came of it, or
//! `refused` with the error number. Nothing but the tests starts it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::thread;

use rustix::process::{Pid, test_kill_process};
use weft_wall::{Child, Wall, enter, file, frame, narrow, role, socket};

/// Longer than any answer here.
const FRAME_MAX: usize = 64 << 10;

fn main() -> ExitCode {
    if role().as_deref() != Some("probe") {
        eprintln!("weft-wall-probe is started by the tests of weft-wall");
        return ExitCode::FAILURE;
    }
    serve().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let mut socket = socket()?;
    let mut own: Vec<Child> = Vec::new();
    while let Some(request) = frame::read(&mut socket, FRAME_MAX)? {
        let request = String::from_utf8(request)?;
        let (word, argument) = request.split_once(' ').unwrap_or((&request, ""));
        let answer = match attempt(word, argument, &mut own) {
            Ok(text) => format!("ok {text}"),
            Err(error) => format!("refused {}: {error}", error.raw_os_error().unwrap_or(0)),
        };
        frame::write(&mut socket, answer.as_bytes(), FRAME_MAX)?;
    }
    Ok(())
}

fn attempt(word: &str, argument: &str, own: &mut Vec<Child>) -> io::Result<String> {
    let done = String::new();
    match word {
        "enter" => {
            let wall = Wall { allow_threads: argument == "threads", memory_bytes: None };
            enter(wall).map(|proof| proof.to_string()).map_err(io::Error::other)
        }
        "enter-small" => {
            let wall = Wall { allow_threads: false, memory_bytes: Some(64 << 20) };
            enter(wall).map(|proof| proof.to_string()).map_err(io::Error::other)
        }
        "narrow" => {
            let given = file(0).map_err(io::Error::other)?;
            narrow(&[given.as_fd()], None).map_err(io::Error::other)?;
            let mut text = String::new();
            File::open("/proc/self/fd/4")?.read_to_string(&mut text)?;
            Ok(text)
        }
        "given" => {
            let mut text = String::new();
            file(0).map_err(io::Error::other)?.read_to_string(&mut text)?;
            Ok(text)
        }
        "read" => {
            let mut first = [0];
            File::open(argument)?.read(&mut first).map(|read| read.to_string())
        }
        "create" => File::create(argument).and_then(|mut file| file.write_all(b"x")).map(|()| done),
        "tcp" => TcpStream::connect(argument).map(|_| done),
        "unix" => UnixStream::connect(argument).map(|_| done),
        "exec" => Command::new(argument).status().map(|status| status.to_string()),
        "signal" => {
            let pid = argument.parse().ok().and_then(Pid::from_raw);
            Ok(test_kill_process(pid.ok_or(io::ErrorKind::InvalidInput)?).map(|()| done)?)
        }
        "thread" => {
            let thread = thread::Builder::new().spawn(|| 42)?;
            thread.join().map(|it| it.to_string()).map_err(|_| io::Error::other("panic"))
        }
        "allocate" => {
            let mut memory: Vec<u8> = Vec::new();
            memory.try_reserve_exact(argument.parse().map_err(io::Error::other)?)?;
            Ok(done)
        }
        "abort" => std::process::abort(),
        "environment" => Ok(std::env::vars().map(|(name, _)| name).collect::<Vec<_>>().join(" ")),
        "descriptors" => {
            // The folder itself is open while it is read; it comes last and is not counted.
            let names = std::fs::read_dir("/proc/self/fd")?;
            let mut numbers: Vec<u32> =
                names.filter_map(|name| name.ok()?.file_name().to_str()?.parse().ok()).collect();
            numbers.sort_unstable();
            numbers.pop();
            Ok(format!("{numbers:?}"))
        }
        // A child of this child, of the same program, found without being told its path.
        "nest" => {
            let child = Child::spawn("probe", Vec::new()).map_err(io::Error::other)?;
            let pid = child.pid();
            own.push(child);
            Ok(pid.to_string())
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}
