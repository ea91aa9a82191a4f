//! Whether the network costs money, as NetworkManager has it from the person or guesses.
//!
//! NetworkManager says it on the system's bus, as a property of itself
//! (<https://networkmanager.dev/docs/api/latest/gdbus-org.freedesktop.NetworkManager.html>).

use std::{path::Path, time::Duration};

use tokio::net::UnixStream;
use zbus::{
    connection,
    proxy::{self, CacheProperties, MethodFlags},
    zvariant::OwnedValue,
};

/// Where the system's bus listens, below the machine's root.
const BUS: &str = "run/dbus/system_bus_socket";
const NETWORK_MANAGER: &str = "org.freedesktop.NetworkManager";
const PATH: &str = "/org/freedesktop/NetworkManager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// The bus is on this machine and answers in a millisecond; one that does not is not waited for.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Asks the bus of the machine at `root`. `None`: there is none, or nobody on it who knows.
pub(crate) async fn ask(root: &Path) -> Option<bool> {
    let answer = tokio::time::timeout(ANSWER_MAX, property(root)).await.ok()?;
    answer.and_then(meaning)
}

/// The property, over a connection of its own that ends with the answer: one that stays would be woken by
/// all that goes over the bus.
async fn property(root: &Path) -> Option<u32> {
    let stream = UnixStream::connect(root.join(BUS)).await.ok()?;
    let bus = connection::Builder::unix_stream(stream).build().await.ok()?;
    let properties: zbus::Proxy<'_> = proxy::Builder::new(&bus)
        .destination(NETWORK_MANAGER)
        .and_then(|it| it.path(PATH))
        .and_then(|it| it.interface(PROPERTIES))
        .ok()?
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .ok()?;
    // Where it does not run, asking must not start it.
    let flags = MethodFlags::NoAutoStart.into();
    let name = (NETWORK_MANAGER, "Metered");
    let value: Option<OwnedValue> = properties.call_with_flags("Get", flags, &name).await.ok()?;
    u32::try_from(value?).ok()
}

/// What NetworkManager's word means. Its guesses count: it guesses from what phones say that lend their
/// connection.
fn meaning(metered: u32) -> Option<bool> {
    match metered {
        1 | 3 => Some(true),
        2 | 4 => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;

    /// A machine whose bus is this socket.
    fn machine() -> (tempfile::TempDir, UnixListener) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(BUS);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        (root, listener)
    }

    /// What is found where NetworkManager says `metered`; `None`: it is not on the bus.
    async fn found(metered: Option<u32>) -> Option<bool> {
        let (root, listener) = machine();
        let bus = tokio::spawn(serve(listener, metered));
        let answer = ask(root.path()).await;
        bus.abort();
        answer
    }

    /// A bus for one caller, in the words of the D-Bus specification.
    async fn serve(listener: UnixListener, metered: Option<u32>) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut said = Vec::new();
        let mut answered = 0;
        while !said.ends_with(b"BEGIN\r\n") {
            said.push(stream.read_u8().await.unwrap());
            if said.ends_with(b"\r\n") {
                let line = said[answered..].to_vec();
                answered = said.len();
                let answer = match line.trim_ascii_start().split(u8::is_ascii_whitespace).next() {
                    Some(b"AUTH" | b"\0AUTH") => "OK 0123456789abcdef0123456789abcdef\r\n",
                    Some(b"NEGOTIATE_UNIX_FD") => "ERROR\r\n",
                    _ => "",
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
        loop {
            let (serial, call) = receive(&mut stream).await;
            let has = |word: &str| call.windows(word.len()).any(|it| it == word.as_bytes());
            if has("Hello") {
                stream.write_all(&answer(serial, "s", b"\x04\0\0\0:1.1\0")).await.unwrap();
            } else if let Some(metered) = metered {
                assert!(has("Get") && has(NETWORK_MANAGER) && has(PATH) && has("Metered"));
                let mut body = b"\x01u\0\0".to_vec();
                body.extend(metered.to_le_bytes());
                stream.write_all(&answer(serial, "v", &body)).await.unwrap();
            } else {
                stream.write_all(&error(serial)).await.unwrap();
            }
        }
    }

    /// The serial and the whole of the next message.
    async fn receive(stream: &mut UnixStream) -> (u32, Vec<u8>) {
        let mut message = vec![0; 16];
        stream.read_exact(&mut message).await.unwrap();
        assert_eq!(message[0], b'l', "this machine writes the low byte first");
        let number = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap());
        let (body, serial, fields) = (number(4), number(8), number(12));
        let rest = fields.next_multiple_of(8) + body;
        message.resize(16 + usize::try_from(rest).unwrap(), 0);
        stream.read_exact(&mut message[16..]).await.unwrap();
        (serial, message)
    }

    /// A method's return: the call's serial and the signature in its fields, then the body.
    fn answer(to: u32, signature: &str, body: &[u8]) -> Vec<u8> {
        let mut fields = b"\x05\x01u\0".to_vec();
        fields.extend(to.to_le_bytes());
        fields.extend(b"\x08\x01g\0\x01");
        fields.extend(signature.as_bytes());
        fields.push(0);
        message(2, &fields, body)
    }

    /// An error without words.
    fn error(to: u32) -> Vec<u8> {
        let name = "org.freedesktop.DBus.Error.ServiceUnknown";
        let mut fields = b"\x05\x01u\0".to_vec();
        fields.extend(to.to_le_bytes());
        fields.extend(b"\x04\x01s\0");
        fields.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
        fields.extend(name.as_bytes());
        fields.push(0);
        message(3, &fields, b"")
    }

    fn message(kind: u8, fields: &[u8], body: &[u8]) -> Vec<u8> {
        let mut message = vec![b'l', kind, 0, 1];
        message.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        message.extend(1_u32.to_le_bytes());
        message.extend(u32::try_from(fields.len()).unwrap().to_le_bytes());
        message.extend(fields);
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend(body);
        message
    }

    #[tokio::test]
    async fn network_manager_is_believed_also_where_it_guesses() {
        for (metered, expected) in
            [(0, None), (1, Some(true)), (2, Some(false)), (3, Some(true)), (4, Some(false))]
        {
            assert_eq!(found(Some(metered)).await, expected, "{metered}");
        }
        assert_eq!(found(Some(77)).await, None, "a word of a later one");
        assert_eq!(found(None).await, None, "another manager");
    }

    #[tokio::test]
    async fn without_a_bus_nothing_is_known_at_once() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(ask(root.path()).await, None);
        fs::create_dir_all(root.path().join("run/dbus")).unwrap();
        fs::write(root.path().join(BUS), "no socket").unwrap();
        assert_eq!(ask(root.path()).await, None);
    }

    #[tokio::test]
    async fn a_bus_that_does_not_answer_is_not_waited_for() {
        let (root, _silent) = machine();
        let before = tokio::time::Instant::now();
        assert_eq!(ask(root.path()).await, None);
        let waited = before.elapsed();
        assert!(waited >= ANSWER_MAX && waited < 2 * ANSWER_MAX, "{waited:?}");
    }
}
