//! `weft recover`: whoever has the recovery words speaks as the root of the fabric.
//!
//! In a home without a device it makes this machine one. In the home of a device, also one that is
//! suspended, it says what the root has to say through the node; the words stay in this process.

mod words;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weft_api::ErrorKind;
use weft_core::trust_log::{StatementView, trust_log};
use weft_net::recovery::ReachError;
use weft_protocol::{
    id::{DeviceId, StatementId},
    signed::Signed,
};
use weft_trust::{
    graph::Graph,
    recovery::{
        RootSecret,
        fetch::{FetchError, view},
        speech::{Lost, SpeechError, Wish},
    },
    state::{Device, Standing},
};

use super::{
    Session,
    arguments::RecoverArguments,
    error::{CommandError, Done},
    init, key,
    node::Node,
    terminal::{self, Terminal, harmless, shortened},
};
use crate::daemon::{
    home::{self, Home},
    memory,
    newcomer::Newcomer,
    recover::{self, FindError, Recovered},
    up,
};

/// So many characters of an id are enough, where no other begins with them.
const ID_PREFIX_CHARS_MIN: usize = 4;

/// What is said where no device answers.
const NO_DEVICE_LEFT: &str = "the words say who belongs, and hold no data: one device that still has \
the fabric must run, even one that is suspended or a member only; where none is left, neither the \
fabric nor what was in it comes back";

pub(super) fn run(session: &Session, arguments: &RecoverArguments) -> Done {
    if !arguments.yes && !terminal::can_ask() {
        let message = "recovering asks a person, and there is no terminal to ask at";
        return Err(CommandError::new(ErrorKind::Usage, message)
            .hint("say it with --yes, and hand over the words with --words-from FD"));
    }
    if arguments.since.is_some() && arguments.lost.len() != 1 {
        let message = "--since says from when on one device was not yours: it takes one --lost";
        return Err(CommandError::new(ErrorKind::Usage, message));
    }
    let home = Home::new(&session.home);
    if home.is_initialised()? {
        return super::wait(speak(session, arguments));
    }
    begin(session, &home, arguments)
}

/// Makes this machine a device.
fn begin(session: &Session, home: &Home, arguments: &RecoverArguments) -> Done {
    up::check_environment()?;
    let terminal = &session.terminal;
    memory::protect()?;
    arguments.at.iter().try_for_each(|at| check_address(at))?;
    let name = init::name(arguments.newcomer.name.clone())?;
    let sink = open_sink(arguments)?;
    let root = words::read(arguments.words_from)?;
    let keys = key::choose(terminal, &arguments.newcomer.keys)?;
    let keeping = home::keys(keys.keeping());
    let found = recover::find(home, &root, &arguments.at).map_err(not_found)?;
    let graph = &found.fetched.graph;
    let fabric = graph.fabric().to_string();
    if !found.fetched.is_vouched && arguments.fabric.as_ref() != Some(&fabric) {
        let message = format!(
            "nothing in the fabric that {} showed was said by these words, so whoever was in \
             your fabric once could have made it up",
            found.answered().join(" and ")
        );
        return Err(CommandError::new(ErrorKind::Fault, message).hint(format!(
            "if a device of yours that you hold shows the fabric {fabric} (weft status --json), say \
             --fabric {fabric}"
        )));
    }
    let told_by = format!("as {} has it", found.answered().join(" and "));
    show(terminal, graph, &told_by);
    let mut wish = asked(arguments, graph)?;
    leave_out_those_who_belong(terminal, &root, graph, &mut wish)?;
    ask_for_suspended(arguments, &root, graph, &mut wish)?;
    let question = format!("Make this machine, {name}, an admin of {}", graph.state().name);
    confirm(arguments, graph, &wish, Some(&question))?;
    show_new_words(arguments, sink, &mut wish)?;
    let newcomer = Newcomer { name: name.clone(), kind: arguments.newcomer.kind, keys };
    let recovered = recover::settle(home, found, &root, newcomer, wish).map_err(refused)?;
    let Recovered { name: given, fabric: fabric_name, told, suspended } = &recovered;
    if terminal.is_json() {
        terminal.json(&json!({
            "outcome": "recovered",
            "name": given.as_str(),
            "fabric": fabric,
            "fabric_name": fabric_name.as_str(),
            "role": "admin",
            "told": told,
            "suspended": suspended,
            "keys": keeping.word(),
        }))?;
        return Ok(None);
    }
    terminal.data(&format!("recovered: this device is an admin of the fabric {fabric_name}"))?;
    if *given != name {
        terminal.say(&format!("its name is {given}: there is another {name}"));
    }
    if told.is_empty() {
        terminal.say("no other device has heard of it yet; they do when they meet this one");
    } else {
        terminal.say(&format!("{} heard of it; the others do when they meet", told.join(", ")));
    }
    tell_suspended(terminal, suspended);
    terminal
        .say("run weft up, and leave it running; weft device revoke NAME puts a lost device out");
    Ok(None)
}

/// Refuses what is no address, before words are typed.
fn check_address(at: &str) -> Result<(), CommandError> {
    let is_host_and_port = at
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if at.starts_with('/') || is_host_and_port {
        return Ok(());
    }
    let message = format!("{:?} is no address with a port", harmless(&shortened(at)));
    Err(CommandError::new(ErrorKind::Usage, message).hint("such as 192.168.1.20:41234"))
}

/// Says something as the root, on a device that has the fabric.
async fn speak(session: &Session, arguments: &RecoverArguments) -> Done {
    let terminal = &session.terminal;
    if let Some(what) = arguments.of_a_new_device() {
        let message = format!(
            "{} holds a device already, and {what} is for a new one",
            session.home.display()
        );
        return Err(CommandError::new(ErrorKind::Usage, message).hint(
            "name another home with --home DIR; without it the root speaks through this device",
        ));
    }
    memory::protect()?;
    let mut node = Node::reach(session).await?;
    let graph = statements(&node.read(json!({"ask": "statements"})).await?)?;
    let sink = open_sink(arguments)?;
    let root = words::read(arguments.words_from)?;
    view(graph.clone(), &root).map_err(|error| {
        if error == FetchError::OtherRoot {
            let message = "these are not the words of this device's fabric";
            CommandError::new(ErrorKind::Denied, message)
        } else {
            CommandError::failed(&error)
        }
    })?;
    show(terminal, &graph, "as this device has it");
    let mut wish = asked(arguments, &graph)?;
    leave_out_those_who_belong(terminal, &root, &graph, &mut wish)?;
    ask_for_suspended(arguments, &root, &graph, &mut wish)?;
    if wish.lost.is_empty() && wish.keep.is_empty() && !arguments.new_words {
        let message = "the words are right, and there is nothing to say with them";
        return Err(CommandError::new(ErrorKind::Usage, message)
            .hint("--keep NAME, --lost NAME with --since STATEMENT, or --new-words"));
    }
    confirm(arguments, &graph, &wish, None)?;
    show_new_words(arguments, sink, &mut wish)?;
    let (said, after) = recover::say(&root, graph, &wish).map_err(refused)?;
    let said: Vec<_> = said.iter().map(weft_api::json::signed).collect();
    node.acts("weft trust log");
    node.get(json!({"ask": "take-statements", "statements": said})).await?;
    let suspended: Vec<String> =
        recover::suspended(&after).into_iter().map(|(_, name)| name.to_string()).collect();
    if terminal.is_json() {
        terminal.json(&json!({
            "outcome": "said", "statements": said.len(), "suspended": suspended,
        }))?;
        return Ok(None);
    }
    terminal.data(&format!("said: {}", summary(&after, &wish).join("; ")))?;
    tell_suspended(terminal, &suspended);
    terminal.say("devices that are away hear it when they come");
    Ok(None)
}

/// The statements of the node's answer.
fn statements(answer: &Value) -> Result<Graph, CommandError> {
    let list = answer["statements"].as_array();
    let list: Option<Vec<Signed>> =
        list.and_then(|list| list.iter().map(weft_api::json::read_signed).collect());
    let garbled = || CommandError::new(ErrorKind::Other, "the node's statements make no sense");
    Graph::from_statements(list.ok_or_else(garbled)?).map_err(|error| CommandError::failed(&error))
}

/// Shows who belongs, who does not, and who said so.
fn show(terminal: &Terminal, graph: &Graph, told_by: &str) {
    let state = graph.state();
    terminal.say(&format!("the fabric {}, {told_by}:", state.name));
    let log = trust_log(graph);
    for (_, device) in named(graph) {
        let line = format!("  {}, a {} and {}", device.name, device.kind, device.role);
        terminal.say(&match standing(device, &log) {
            None => line,
            Some((word, why)) => format!("{line}: {word}; {}", harmless(&why)),
        });
    }
}

/// All devices that ever belonged. A key that another took the place of is no device of its own.
fn named(graph: &Graph) -> impl Iterator<Item = (&DeviceId, &Device)> {
    let state = graph.state();
    let is_former = |id: &DeviceId| {
        let last = state.successor(id);
        last != *id && state.devices.contains_key(&last)
    };
    state.devices.iter().filter(move |(id, _)| !is_former(id))
}

/// The word for where a device stands, and who said what when, with the statement's id.
fn standing(device: &Device, log: &[StatementView]) -> Option<(&'static str, String)> {
    let (word, id) = match device.standing {
        Standing::Active => return None,
        Standing::Suspended { cause } => ("suspended", cause),
        Standing::Revoked { by } => ("revoked", by),
    };
    let said = log.iter().find(|it| it.id == id)?;
    let time = json!({ "at": weft_api::json::time(said.time) });
    let at = terminal::local_time(&time, "at");
    Some((word, format!("{} ({at}, statement {})", said.sentence, id.short())))
}

/// What the arguments name, in this fabric.
fn asked(arguments: &RecoverArguments, graph: &Graph) -> Result<Wish, CommandError> {
    let mut wish = Wish::default();
    for word in &arguments.lost {
        let device = device(graph, word)?;
        let since = arguments.since.as_deref().map(|word| statement(graph, word)).transpose()?;
        wish.lost.push(Lost { device, since });
    }
    for word in &arguments.keep {
        wish.keep.push(device(graph, word)?);
    }
    Ok(wish)
}

/// The device of that name, or whose id begins so.
fn device(graph: &Graph, word: &str) -> Result<DeviceId, CommandError> {
    let devices = &graph.state().devices;
    let called: Vec<DeviceId> =
        named(graph).filter(|(_, it)| it.name.as_str() == word).map(|(id, _)| *id).collect();
    let names: BTreeSet<&str> = named(graph).map(|(_, it)| it.name.as_str()).collect();
    let begun = devices.keys().copied();
    one(word, called, begun, "device", || {
        format!("there are {}", names.into_iter().collect::<Vec<_>>().join(", "))
    })
}

/// The statement whose id begins so.
fn statement(graph: &Graph, word: &str) -> Result<StatementId, CommandError> {
    one(word, Vec::new(), graph.ids().copied(), "statement", || {
        "weft trust log shows them, and so does this command".to_owned()
    })
}

fn one<I: Copy + ToString>(
    word: &str,
    named: Vec<I>,
    all: impl Iterator<Item = I>,
    what: &str,
    others: impl FnOnce() -> String,
) -> Result<I, CommandError> {
    let found: Vec<I> = if named.is_empty() && word.len() >= ID_PREFIX_CHARS_MIN {
        all.filter(|id| id.to_string().starts_with(word)).collect()
    } else {
        named
    };
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            let message = format!("there is no {what} {:?}", harmless(&shortened(word)));
            Err(CommandError::new(ErrorKind::NotFound, message).hint(others()))
        }
        several => {
            let ids: Vec<_> = several.iter().map(ToString::to_string).collect();
            let message = format!("{:?} is more than one {what}", harmless(&shortened(word)));
            Err(CommandError::new(ErrorKind::Usage, message)
                .hint(format!("say which by its id: {}", ids.join(", "))))
        }
    }
}

/// Asks about each device that is suspended once the root has said this much.
fn ask_for_suspended(
    arguments: &RecoverArguments,
    root: &RootSecret,
    graph: &Graph,
    wish: &mut Wish,
) -> Result<(), CommandError> {
    if arguments.yes {
        return Ok(());
    }
    let (_, after) = recover::say(root, graph.clone(), wish).map_err(refused)?;
    for (id, name) in recover::suspended(&after) {
        let question = format!("{name} is suspended then. Is it in your hands, and does it stay?");
        if terminal::ask(&question) {
            wish.keep.push(id);
        }
    }
    Ok(())
}

/// Leaves out whom nothing suspends once the root has said the rest, and tells so: the copy at hand may
/// be older than another.
fn leave_out_those_who_belong(
    terminal: &Terminal,
    root: &RootSecret,
    graph: &Graph,
    wish: &mut Wish,
) -> Result<(), CommandError> {
    if wish.lost.is_empty() {
        return Ok(());
    }
    let without = Wish { keep: Vec::new(), ..wish.clone() };
    let (_, after) = recover::say(root, graph.clone(), &without).map_err(refused)?;
    let belongs = |id: &DeviceId| {
        after.state().devices.get(id).filter(|it| it.is_active()).map(|it| &it.name)
    };
    for name in wish.keep.iter().filter_map(belongs) {
        terminal.say(&format!(
            "{name} belongs, for all that is known here; should another device have it suspended, \
             weft device keep {name} brings it back"
        ));
    }
    wish.keep.retain(|id| belongs(id).is_none());
    Ok(())
}

/// Tells who is suspended still, and what to do about it.
fn tell_suspended(terminal: &Terminal, suspended: &[String]) {
    for name in suspended {
        terminal.say(&format!("{name} is suspended: weft device keep {name} brings it back"));
    }
}

/// What the root is about to say, or said.
fn summary(graph: &Graph, wish: &Wish) -> Vec<String> {
    let name = |id: &DeviceId| {
        graph.state().devices.get(id).map_or_else(|| id.short(), |it| it.name.to_string())
    };
    let mut lines = Vec::new();
    for lost in &wish.lost {
        lines.push(match &lost.since {
            None => format!("{} is out", name(&lost.device)),
            Some(since) => {
                let (name, since) = (name(&lost.device), since.short());
                format!("{name} is out, and what it said from {since} on does not count")
            }
        });
    }
    lines.extend(wish.keep.iter().map(|id| format!("{} stays", name(id))));
    if wish.new_root.is_some() {
        lines.push("the old words are worth nothing".to_owned());
    }
    lines
}

/// Asks for the last yes.
fn confirm(
    arguments: &RecoverArguments,
    graph: &Graph,
    wish: &Wish,
    question: Option<&str>,
) -> Result<(), CommandError> {
    if arguments.yes {
        return Ok(());
    }
    let mut said = summary(graph, wish);
    if arguments.new_words {
        said.push("the old words are worth nothing".to_owned());
    }
    let also = said.into_iter().map(|line| format!("\n  {line}")).collect::<String>();
    let asked = match question {
        Some(question) if also.is_empty() => format!("{question}?"),
        Some(question) => format!("{question}, and say as the root:{also}\nYes?"),
        None => format!("As the root, say:{also}\nYes?"),
    };
    terminal::answered(&asked)
}

/// Where new words go; opened before anything is asked.
fn open_sink(arguments: &RecoverArguments) -> Result<Option<init::Sink>, CommandError> {
    if !arguments.new_words {
        return Ok(None);
    }
    let sink = init::open_sink(arguments.words_to)?;
    if sink.is_none() {
        let message = "new words are shown once, and there is no terminal to show them on";
        return Err(CommandError::new(ErrorKind::Usage, message)
            .hint("--words-to FD names another place, as in --words-to 4 4>words.txt"));
    }
    Ok(sink)
}

/// Draws the new words and shows them, before anything is said with the old ones.
fn show_new_words(
    arguments: &RecoverArguments,
    sink: Option<init::Sink>,
    wish: &mut Wish,
) -> Result<(), CommandError> {
    if let (true, Some(sink)) = (arguments.new_words, sink) {
        let root: RootSecret = recover::new_root()?;
        init::show_words(sink, &root.words())?;
        wish.new_root = Some(root);
    }
    Ok(())
}

/// Why no fabric was found, for a person.
fn not_found(error: anyhow::Error) -> CommandError {
    match error.downcast_ref::<FindError>() {
        Some(FindError::Fetch(FetchError::Refused)) => {
            let error = CommandError::failed(&FetchError::Refused).of_kind(ErrorKind::Denied);
            error.hint("each fabric has its own words; new ones make the old ones worthless")
        }
        Some(FindError::Fetch(other @ FetchError::TimedOut)) => {
            CommandError::failed(other).of_kind(ErrorKind::CouldNotReach)
        }
        Some(FindError::Fetch(other)) => CommandError::failed(other).of_kind(ErrorKind::Fault),
        Some(other @ FindError::NowhereToLook) => CommandError::failed(other)
            .of_kind(ErrorKind::Usage)
            .hint("say where one is: --at HOST:PORT"),
        Some(other @ FindError::Reach(ReachError::NoAddress { .. })) => {
            CommandError::failed(other).of_kind(ErrorKind::Usage)
        }
        Some(
            other @ (FindError::NobodySighted | FindError::NoAnswer { .. } | FindError::Reach(_)),
        ) => CommandError::failed(other)
            .of_kind(ErrorKind::CouldNotReach)
            .hint("--at HOST:PORT names a device: weft status shows its addresses there")
            .hint(NO_DEVICE_LEFT),
        None => CommandError::from(error),
    }
}

/// Why the root does not say that, for a person.
fn refused(error: anyhow::Error) -> CommandError {
    match error.downcast_ref::<SpeechError>() {
        Some(said @ SpeechError::StaysOut { .. }) => CommandError::failed(said)
            .of_kind(ErrorKind::Usage)
            .hint("--lost NAME --since STATEMENT says from which statement on NAME was not yours"),
        Some(said) => CommandError::failed(said).of_kind(ErrorKind::Usage),
        None => CommandError::from(error),
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;
    use weft_protocol::{device::Kind, time::WallTime};
    use weft_trust::{
        author::{Author, NewFabric, genesis},
        keyring::Keyring,
        secret::DeviceSecret,
    };

    use super::*;

    #[test]
    fn a_name_is_of_the_key_in_use_and_a_former_key_goes_by_its_id() {
        let (old, new) = (DeviceSecret::from_seed(&[1; 32]), DeviceSecret::from_seed(&[2; 32]));
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let at = WallTime::from_unix_millis(1_800_000_000_000);
        let fabric = NewFabric {
            name: &"home".parse().unwrap(),
            root: None,
            device: &old,
            device_name: &"laptop".parse().unwrap(),
            kind: Kind::Laptop,
        };
        let mut graph = Graph::new(genesis(fabric, at, &mut rng)).unwrap();
        let mut keyring = Keyring::new(old.agreement().clone());
        keyring.learn(&graph);
        let rotated = Author::new(&graph, &keyring, old.signing()).rotate(&new, at, &mut rng);
        graph.insert(rotated.unwrap()).unwrap();
        assert_eq!(graph.state().devices.len(), 2);
        assert_eq!(device(&graph, "laptop").unwrap(), new.id());
        assert_eq!(device(&graph, &old.id().to_string()).unwrap(), old.id());
        assert_eq!(named(&graph).count(), 1);
        let error = device(&graph, &"x".repeat(3_000)).expect_err("there is none");
        assert!(error.message().len() < 200, "{}", error.message());
    }

    #[test]
    fn an_address_has_a_port() {
        for at in ["127.0.0.1:1", "[::1]:4001", "attic.local:4001", "/ip4/127.0.0.1/tcp/1"] {
            assert!(check_address(at).is_ok(), "{at}");
        }
        for at in ["nonsense", "127.0.0.1", ":4001", "attic:port"] {
            let error = check_address(at).expect_err(at);
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
    }

    #[test]
    fn nobody_at_an_address_is_told_by_that_address() {
        let error = not_found(FindError::NoAnswer { at: "127.0.0.1:1".into() }.into());
        assert_eq!(error.kind(), ErrorKind::CouldNotReach);
        assert!(error.message().ends_with("no answer at 127.0.0.1:1"), "{}", error.message());
    }
}
