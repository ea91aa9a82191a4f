//! Guests written for the tests, and hosts that run them.

use std::{collections::BTreeMap, path::Path, time::Duration};

use bytes::Bytes;
use tempfile::TempDir;
use weft_host::{Host, HostBounds, HostConfig, Task};
use weft_protocol::{id::Digest, manifest::Permissions, value::Value};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Interfaces that `weft:agent` does not have, and a world with everything.
const WIT: &str = r#"
    package weft:test;

    interface escape { act: func(what: string) -> string; }
    interface secrets { read: func(name: string) -> string; }

    world guest {
        include weft:agent/agent@0.1.0;
        import escape;
        import secrets;
        import wasi:cli/environment@0.2.6;
        import wasi:clocks/monotonic-clock@0.2.6;
        import wasi:io/poll@0.2.6;
    }

    package wasi:cli@0.2.6 {
        interface environment { get-arguments: func() -> list<string>; }
    }
    package wasi:io@0.2.6 {
        interface poll { resource pollable { block: func(); } }
    }
    package wasi:clocks@0.2.6 {
        interface monotonic-clock {
            use wasi:io/poll@0.2.6.{pollable};
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
"#;

/// What a guest may use: `$line` logs a text, `$give` returns a text as its output. Each argument is a
/// pointer and a length; texts that the guest is handed are put behind the first 4 KiB.
const LINE: &str = r#"(import "weft:agent/log@0.1.0" "line" (func $line (param i32 i32)))"#;
const COMMON: &str = r#"
    (memory (export "memory") 64)
    (global $free (mut i32) (i32.const 4096))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (global.get $free)
        (global.set $free (i32.and
            (i32.add (i32.add (global.get $free) (local.get 3)) (i32.const 7))
            (i32.const -8))))
    (func $give (param i32 i32) (result i32)
        (i32.store8 (i32.const 3072) (i32.const 0))
        (i32.store (i32.const 3076) (local.get 0))
        (i32.store (i32.const 3080) (local.get 1))
        (i32.const 3072))
    (data (i32.const 16) "\"done\"")
"#;

/// A component whose `run` has `body`; `head` holds its further imports, functions and data. The
/// parameters are pointers and lengths of the capability, the arguments and the files.
pub(crate) fn guest(head: &str, body: &str) -> Bytes {
    let module = format!(
        r#"(module {LINE} {head} {COMMON}
            (func (export "run") (param i32 i32 i32 i32 i32 i32) (result i32) {body}))"#
    );
    component(&module)
}

/// A component of a core module in WebAssembly's text form.
pub(crate) fn component(module: &str) -> Bytes {
    let mut module = wat::parse_str(module).unwrap();
    let mut resolve = Resolve::default();
    resolve.push_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")).unwrap();
    let package = resolve.push_str("test.wit", WIT).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let encoded = ComponentEncoder::default().validate(true).module(&module).unwrap().encode();
    encoded.unwrap().into()
}

/// A host with a folder of its own, whose children are the test's own program.
pub(crate) fn host() -> (Host, TempDir) {
    host_that_waits(Duration::from_secs(60))
}

pub(crate) fn host_that_waits(idle_after: Duration) -> (Host, TempDir) {
    host_within(HostBounds::default(), idle_after)
}

/// A host that gets so much of the machine.
pub(crate) fn host_within(bounds: HostBounds, idle_after: Duration) -> (Host, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::new(HostConfig {
        program: Some(env!("CARGO_BIN_EXE_weft-host-child").into()),
        cache: folder.path().to_owned(),
        cache_key: [7; 32],
        idle_after,
        bounds,
    });
    (host, folder)
}

/// What a manifest that asks for nothing is granted.
pub(crate) fn nothing() -> Permissions {
    Permissions {
        documents_read: Vec::new(),
        documents_write: Vec::new(),
        timers: false,
        memory_mib: 16,
        processor_ms: 2_000,
    }
}

/// A step of a component.
pub(crate) fn task(component: &Bytes, permissions: Permissions, capability: &str) -> Task {
    Task {
        package: Digest::of(component),
        component: component.clone(),
        permissions,
        calls_granted: false,
        capability: capability.parse().unwrap(),
        arguments: Value::Map(BTreeMap::new()),
        files: BTreeMap::new(),
        deadline: Duration::from_secs(60),
    }
}
