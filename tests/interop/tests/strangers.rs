//! Strangers by other implementations of libp2p.

use serde_json::json;
use weft_e2e::{Fabric, not_run};
use weft_interop::Program;

/// All that a node speaks, and all that it will speak.
const PROTOCOLS: [&str; 8] = [
    "/weft/trust/1",
    "/weft/presence/1",
    "/weft/sync/1",
    "/weft/run/1",
    "/weft/audit/1",
    "/weft/blob/1",
    "/weft/llm/1",
    "/weft/pair/1",
];

#[test]
fn js_libp2p_speaks_with_a_node_and_is_given_nothing_but_trust() {
    greet(Program::JavaScript);
}

#[test]
fn py_libp2p_speaks_with_a_node_and_is_given_nothing_but_trust() {
    greet(Program::Python);
}

fn greet(program: Program) {
    let folder = match program.install() {
        Ok(folder) => folder,
        Err(why) => return not_run(&format!("{program:?}: {why}")),
    };
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    let begun = laptop.run(&["init", "--name", "laptop", "--kind", "laptop"]);
    assert_eq!(begun.code, Some(0), "{begun}");
    laptop.up();
    let status = laptop.json(&["status"]);
    let addresses = status["addresses"].as_array().expect("a node has addresses");
    let address = addresses
        .iter()
        .filter_map(|address| address.as_str())
        .find(|address| address.contains("/tcp/"))
        .expect("a node listens on TCP");
    let id = status["device"].as_str().expect("a node has an id").to_uppercase();
    let key = data_encoding::BASE32_NOPAD.decode(id.as_bytes()).expect("an id is in base 32");
    let key = data_encoding::HEXLOWER.encode(&key);

    let heard = program.run(&folder, address, &key, &PROTOCOLS);
    let heard = heard.unwrap_or_else(|why| panic!("{program:?}: {why}\n{}", laptop.node_said()));
    eprintln!("{program:?} heard {heard:#}");

    // Noise proved the device's key, over Yamux, and both ends understand each other's frames.
    match program {
        Program::JavaScript => {
            assert_eq!(heard["encryption"], "/noise");
            assert_eq!(heard["multiplexer"], "/yamux/1.0.0");
            assert_eq!(heard["key"], key);
        }
        Program::Python => {
            assert_eq!(heard["multiplexer"], "Yamux");
            assert_eq!(heard["security"], "/noise");
        }
    }
    assert_eq!(heard["pings"].as_array().map(Vec::len), Some(3));

    // Identify says who answers, and nothing of where else it may be found or of what members speak.
    let told = &heard["identify"];
    assert_eq!(told["key"], key);
    assert_eq!(told["addresses"], json!([]));
    assert_eq!(told["version"], "weft/1");
    assert!(told["agent"].as_str().is_some_and(|agent| agent.starts_with("weft/")), "{told}");
    let mut protocols: Vec<_> = told["protocols"]
        .as_array()
        .expect("identify names protocols")
        .iter()
        .filter_map(|protocol| protocol.as_str())
        .collect();
    protocols.sort_unstable();
    assert_eq!(
        protocols,
        ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/weft/trust/1"]
    );

    // One application protocol opens; that is not for want of a connection.
    let refusal = match program {
        Program::JavaScript => "UnsupportedProtocolError",
        Program::Python => "StreamFailure",
    };
    for protocol in PROTOCOLS {
        let expected = if protocol == "/weft/trust/1" { protocol } else { refusal };
        assert_eq!(heard["opened"][protocol], expected, "{protocol}");
    }

    // What is no message ends it, and the node goes on.
    assert!(heard["garbage"].as_str().is_some_and(|it| it.ends_with("was closed")), "{heard}");
    laptop.note("strangers were here");
    laptop.verify();
}
