//! What the environment says of a node, where it says nothing or what nobody knows.

use std::path::Path;

use weft_e2e::Fabric;

#[test]
fn an_empty_variable_is_none_and_an_unknown_word_is_refused_before_anything_is_made() {
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    for name in ["WEFT_METERED", "WEFT_UPNP"] {
        // There is nothing to run yet, which is not the variable's fault.
        let said = laptop.start_where(name, Path::new(""), &["up"]).end();
        assert_eq!(said.code, Some(13), "{name}: {said}");
    }
    let init = ["init", "--name", "laptop", "--kind", "laptop"];
    let said = laptop.start_where("WEFT_LISTEN", Path::new("foo"), &init).end().expect_code(2);
    assert!(said.stderr.contains("WEFT_LISTEN=\"foo\" is not known"), "{said}");
    assert!(!laptop.home().exists(), "nothing was made");
    drop(laptop.start_where("WEFT_METERED", Path::new(""), &init).end().expect_code(0));
}
