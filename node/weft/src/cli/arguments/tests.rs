//! What is read of what is typed.

use super::*;

fn read(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(line.split_whitespace())
}

#[test]
fn the_description_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn an_empty_variable_counts_as_none() {
    let read = |value: Option<&str>| {
        let command = without_empty(Arguments::command(), &|_| value.map(OsString::from));
        let of = |command: &clap::Command, id: &str| {
            let mut arguments = command.get_arguments();
            arguments.find(|it| it.get_id() == id).is_some_and(|it| it.get_env().is_some())
        };
        let up = command.find_subcommand("up").expect("it is a command");
        (of(&command, "home"), of(up, "metered"))
    };
    assert_eq!(read(Some("")), (false, false));
    assert_eq!((read(Some("no")), read(None)), ((true, true), (true, true)));
}

#[test]
fn help_lists_the_variables_that_change_what_a_node_does() {
    let mut up = Arguments::command().find_subcommand("up").expect("it is a command").clone();
    let up = up.render_long_help().to_string();
    for variable in ["WEFT_LISTEN", "WEFT_UPNP", "WEFT_METERED"] {
        assert!(LONG_HELP.contains(&format!("\n  {variable} ")), "{variable}");
        assert!(up.contains(&format!("\n  {variable} ")), "{variable}: {up}");
    }
}

#[test]
fn the_forms_that_scripts_use_are_read() {
    for line in [
        "weft init --name laptop --kind laptop --key file",
        "weft init --name n --kind server --fabric house --words-to 3",
        "weft --home /tmp/h up",
        "weft up --passphrase-from 0",
        "weft init --key passphrase --passphrase-from 3",
        "weft join - --key credential --yes",
        "weft lock --yes",
        "weft unlock --passphrase-from 3",
        "weft key status --json",
        "weft key set passphrase --passphrase-from 3 --new-passphrase-from 3",
        "weft key set credential",
        "weft key set keychain",
        "weft status --json",
        "weft doctor",
        "weft doctor --json",
        "weft invite --yes --json",
        "weft invite --role admin",
        "weft invite --code --yes --json --wait",
        "weft join 4711-apple-river-stone --at 192.168.1.20:41234",
        "weft join --image screenshot.png",
        "weft join WEFT1:ABC --name phone --kind phone --yes --key file",
        "weft join - --name phone --kind phone",
        "weft devices --json",
        "weft device revoke phone --yes",
        "weft devices revoke phone",
        "weft device show phone --json",
        "weft device rename phone pocket",
        "weft device rename --fabric house",
        "weft device role phone admin",
        "weft device role phone member --yes",
        "weft device role phone keeper",
        "weft device keep phone --yes",
        "weft recover --at 192.168.1.20:41234",
        "weft recover --lost phone --since mj5nhbzy --keep laptop --keep server",
        "weft recover --new-words --words-from 3 --words-to 4 --yes",
        "weft recover --at 1.2.3.4:5 --name server --kind server --key credential --yes",
        "weft trust log",
        "weft trust log --limit 5 --json",
        "weft agents --json",
        "weft notes list --json",
        "weft notes --json",
        "weft notes search the garden",
        "weft do --plan --json --now 2026-03-10T09:00:00 set a timer for 5 minutes",
        "weft do note that x --json",
        "weft run list",
        "weft run show",
        "weft run show abc",
        "weft run cancel abc",
        "weft timers",
        "weft timers list",
        "weft timers list --json",
        "weft audit list --from 3 --limit 5 --json",
        "weft audit verify",
        "weft audit verify --every-signature",
        "weft policy check note that x",
        "weft policy test",
        "weft model get --from a.gguf --to b.gguf",
        "weft model status",
        "weft events --json -vv",
    ] {
        if let Err(error) = read(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_makes_no_sense_ends_with_2() {
    for line in [
        "weft",
        "weft explode",
        "weft do",
        "weft init --kind toaster",
        "weft init --words-to 1",
        "weft init --key pocket",
        "weft key set",
        "weft unlock secret",
        "weft up --locked --unlocked",
        "weft join",
        "weft notes search",
        "weft timers show",
        "weft do --now yesterday x",
        "weft invite --role keeper",
        "weft join",
        "weft join WEFT1:A --image screenshot.png",
        "weft device show",
        "weft device rename phone",
        "weft device rename phone pocket --fabric house",
        "weft device role phone king",
        "weft trust",
    ] {
        assert_eq!(read(line).expect_err(line).exit_code(), 2, "{line}");
    }
}

#[test]
fn what_is_wrong_with_a_value_is_said_in_words() {
    let said = |line: &str| read(line).expect_err(line).to_string();
    let kind = said("weft init --kind toaster");
    assert!(kind.contains("[possible values: laptop, phone, server]"), "{kind}");
    let time = said("weft do --now yesterday x");
    assert!(time.contains("it is no local time such as"), "{time}");
}

#[test]
fn prose_in_help_is_broken_by_the_terminal_alone() {
    let mut weft = Arguments::command();
    weft.build();
    for command in weft.get_subcommands().chain([&weft]) {
        for help in [command.get_after_help(), command.get_after_long_help()] {
            let help = help.map(ToString::to_string).unwrap_or_default();
            let lines: Vec<_> = help.lines().collect();
            for pair in lines.windows(2) {
                let are_prose = pair.iter().all(|line| line.starts_with(char::is_alphabetic));
                assert!(!are_prose, "{}: {pair:?}", command.get_name());
            }
        }
    }
}

#[test]
fn words_keep_their_order_and_options_stay_options() {
    let Ok(Arguments { command: Command::Do(arguments), json: true, .. }) =
        read("weft do note that --json -- --x")
    else {
        panic!("it is a `do`")
    };
    assert_eq!(arguments.words, ["note", "that", "--x"]);
}
