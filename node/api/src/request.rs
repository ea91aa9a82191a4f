//! What a client asks, as it stands in a line.
//!
//! Each line is an object with the client's number for the request, and what is asked:
//!
//! ```text
//! {"id":1,"ask":"say","words":"note that …","local_time":"2026-03-10T09:00:00","time_zone":"Europe/Vienna",
//!         "plan_only":false,"can_ask":true,"files":{"report.pdf":"<base64>"}}
//! {"id":2,"ask":"consent","run":"…","step":"1","yes":true}
//! {"id":3,"ask":"devices"}
//! ```
//!
//! | `ask` | with | answered by ([`crate::json`]) |
//! |---|---|---|
//! | `status` `checkup` `devices` `agents` `runs` `timers` `verify` `models` | | their shape |
//! | `say` | above; only `words`, `local_time`, `time_zone` must be there | a plan where `plan_only`, else `{"run": …}` and events |
//! | `run` | `prefix` of its id; empty or absent: the newest | a run with its journal |
//! | `documents` | `kind`, `query`, `limit` | a list of documents |
//! | `audit` | `position`, `limit`, and `key` for one that the device had before | a list of records |
//! | `invite` | `role`, `confirmed_by_itself`, `by_code` | `{"ticket": …, "expires": …}` and events; by code `{"code": …, "addresses": […], "expires": …}` |
//! | `confirm` | `yes`, `role` | done |
//! | `consent` | `run`, `step`, `yes` | done |
//! | `cancel` | `run` | done |
//! | `device` | `device`: its name or id, or the beginning of that | a device |
//! | `revoke` `keep` | `device` | done |
//! | `rename` | `device`, or none for the fabric; `name` | done |
//! | `set-role` | `device`, `role`, `confirmed`: a person said yes to `admin` on a screen | done |
//! | `statements` | | `{"statements": […]}`: each as it is signed, base64 |
//! | `take-statements` | `statements`: what the root said, in the same form | done |
//! | `trust-log` | `limit` | a list of statements |
//! | `close-invitation` `model-changed` | | done |
//! | `rotate` | | `{"former": …, "device": …}`; then the node begins anew, under the new key |
//! | `lock` | | done; then the node begins anew, locked |
//! | `unlock` | `key`: base64 of the key that opens the key file | done; then the node begins anew, unlocked |
//! | `watch` | | done, then every event |

use std::{collections::BTreeMap, fmt};

use data_encoding::BASE64;
use serde_json::{Map, Value};
use weft_core::door::Command;
use weft_protocol::{device::Role, graph::StepId, id::RunId, signed::Signed};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    json,
    problem::{ErrorKind, Problem},
};

/// The longest line that is taken: files travel in it, as base64.
pub const REQUEST_BYTES_MAX: usize = 64 << 20;

/// The most bytes of all files of one request together: two thirds of them fit into a line twice.
pub const FILE_BYTES_MAX: usize = 32 << 20;

/// How many are listed where a request does not say.
const LIMIT_DEFAULT: usize = 100;

/// Something that is asked of the node.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// What the core answers by itself. [`Command::Do`] and [`Command::Explain`] have no form in a
    /// line: a client has words, and the node makes the plan.
    Core(Command),
    /// Words.
    Say(Say),
    /// Which models lie here, and how they fare.
    Models,
    /// A model's file came or went: the node looks again.
    ModelChanged,
    /// Another key is to take the place of this device's.
    Rotate,
    /// The keys are to leave this node's memory.
    Lock,
    /// A locked node is to open its keys.
    Unlock(UnlockKey),
}

/// The key that opens the key file. It is made of the passphrase where that was typed, so that the
/// passphrase itself never reaches a process that stays. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct UnlockKey([u8; 32]);

impl UnlockKey {
    /// The bytes; the caller wipes what it copies.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The object that asks for unlocking with it.
    pub fn to_json(&self) -> Value {
        serde_json::json!({"ask": "unlock", "key": BASE64.encode(&self.0)})
    }
}

impl From<[u8; 32]> for UnlockKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(..)")
    }
}

/// Words that mean something to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Say {
    /// What was said.
    pub words: String,
    /// The local time that the words are read against, ISO 8601 without an offset.
    pub local_time: String,
    /// The asking person's IANA time zone.
    pub time_zone: String,
    /// Whether only the plan is wanted. Nothing runs, no path is opened.
    pub plan_only: bool,
    /// The files that the words name, by the path as said.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Whether a person can be asked at this door.
    pub can_ask: bool,
}

/// A line's number and what it asks. The number is there even where the rest makes no sense.
pub(crate) fn read(line: &[u8]) -> (u64, Result<Request, Problem>) {
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => return (0, Err(wrong(format!("the request is not JSON: {error}")))),
    };
    let id = value.get("id").and_then(Value::as_u64).unwrap_or(0);
    (id, Request::try_from(&value))
}

impl TryFrom<&Value> for Request {
    type Error = Problem;

    fn try_from(value: &Value) -> Result<Self, Problem> {
        let Value::Object(fields) = value else {
            return Err(wrong("the request is not an object"));
        };
        let fields = Fields(fields);
        let command = match fields.text("ask")? {
            "say" => return Say::read(&fields).map(Self::Say),
            "models" => return Ok(Self::Models),
            "model-changed" => return Ok(Self::ModelChanged),
            "rotate" => return Ok(Self::Rotate),
            "lock" => return Ok(Self::Lock),
            "unlock" => return Ok(Self::Unlock(fields.unlock_key()?)),
            "status" => Command::Status,
            "checkup" => Command::Checkup,
            "devices" => Command::Devices,
            "device" => Command::Device { device: fields.text("device")?.to_owned() },
            "statements" => Command::Statements,
            "take-statements" => Command::TakeStatements { statements: fields.statements()? },
            "trust-log" => Command::TrustLog { limit: fields.number_or("limit", LIMIT_DEFAULT)? },
            "agents" => Command::Agents,
            "runs" => Command::Runs,
            "run" => Command::Run { prefix: fields.text_or("prefix", "")?.to_owned() },
            "documents" => Command::Documents {
                kind: fields.text("kind")?.to_owned(),
                query: fields.text_or("query", "")?.to_owned(),
                limit: fields.number_or("limit", LIMIT_DEFAULT)?,
            },
            "timers" => Command::Timers,
            "audit" => Command::Audit {
                key: fields.text_if_any("key")?.map(str::to_owned),
                position: fields.number_or("position", 0)?,
                limit: fields.number_or("limit", LIMIT_DEFAULT)?,
            },
            "verify" => {
                Command::Verify { every_signature: fields.bool_or("every_signature", false)? }
            }
            "invite" => Command::Invite {
                role: fields.role()?,
                confirmed_by_itself: fields.bool_or("confirmed_by_itself", false)?,
                by_code: fields.bool_or("by_code", false)?,
            },
            "confirm" => Command::Confirm { yes: fields.bool("yes")?, role: fields.role()? },
            "close-invitation" => Command::CloseInvitation,
            "revoke" => Command::Revoke { device: fields.text("device")?.to_owned() },
            "rename" => Command::Rename {
                device: fields.text_if_any("device")?.map(str::to_owned),
                name: fields
                    .text("name")?
                    .parse()
                    .map_err(|error| wrong(format!("failed to {error}")))?,
            },
            "set-role" => {
                fields.text("role")?;
                Command::SetRole {
                    device: fields.text("device")?.to_owned(),
                    role: fields.role()?,
                    confirmed: fields.bool_or("confirmed", false)?,
                }
            }
            "keep" => Command::Keep { device: fields.text("device")?.to_owned() },
            "cancel" => Command::Cancel { run: fields.run()? },
            "consent" => Command::Consent {
                run: fields.run()?,
                step: step_id(fields.text("step")?)?,
                yes: fields.bool("yes")?,
            },
            "watch" => Command::Watch,
            other => {
                return Err(wrong(format!("the request asks for {other:?}, which is nothing")));
            }
        };
        Ok(Self::Core(command))
    }
}

impl Say {
    fn read(fields: &Fields<'_>) -> Result<Self, Problem> {
        let mut files = BTreeMap::new();
        if let Some(value) = fields.0.get("files") {
            let Value::Object(entries) = value else {
                return Err(wrong("files is not an object"));
            };
            for (path, content) in entries {
                let bytes = content
                    .as_str()
                    .and_then(|text| BASE64.decode(text.as_bytes()).ok())
                    .ok_or_else(|| wrong(format!("the file {path:?} is not base64")))?;
                files.insert(path.clone(), bytes);
            }
        }
        if files.values().map(Vec::len).sum::<usize>() > FILE_BYTES_MAX {
            return Err(wrong(format!("the files have more than {} MiB", FILE_BYTES_MAX >> 20)));
        }
        Ok(Self {
            words: fields.text("words")?.to_owned(),
            local_time: fields.text("local_time")?.to_owned(),
            time_zone: fields.text("time_zone")?.to_owned(),
            plan_only: fields.bool_or("plan_only", false)?,
            files,
            can_ask: fields.bool_or("can_ask", false)?,
        })
    }

    /// The object that asks for this; the inverse of reading it.
    pub fn to_json(&self) -> Value {
        let files: Map<String, Value> = self
            .files
            .iter()
            .map(|(path, bytes)| (path.clone(), BASE64.encode(bytes).into()))
            .collect();
        serde_json::json!({
            "ask": "say",
            "words": self.words,
            "local_time": self.local_time,
            "time_zone": self.time_zone,
            "plan_only": self.plan_only,
            "files": files,
            "can_ask": self.can_ask,
        })
    }
}

/// Reads `2.1.3`.
fn step_id(text: &str) -> Result<StepId, Problem> {
    let numbers: Result<Vec<u16>, _> = text.split('.').map(str::parse).collect();
    numbers.map(StepId).map_err(|_| wrong(format!("{text:?} is not a step such as 2 or 2.1")))
}

fn wrong(message: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Usage, message)
}

/// The fields of a request. Those that nobody asks for are let be, so that a newer client is
/// understood as far as it can be.
struct Fields<'v>(&'v Map<String, Value>);

impl<'v> Fields<'v> {
    fn text(&self, name: &str) -> Result<&'v str, Problem> {
        let value = self.0.get(name).ok_or_else(|| wrong(format!("the request has no {name}")))?;
        value.as_str().ok_or_else(|| wrong(format!("{name} is not text")))
    }

    fn text_or(&self, name: &str, default: &'v str) -> Result<&'v str, Problem> {
        if self.0.contains_key(name) { self.text(name) } else { Ok(default) }
    }

    fn text_if_any(&self, name: &str) -> Result<Option<&'v str>, Problem> {
        if self.0.get(name).is_none_or(Value::is_null) {
            Ok(None)
        } else {
            self.text(name).map(Some)
        }
    }

    fn bool(&self, name: &str) -> Result<bool, Problem> {
        let value = self.0.get(name).ok_or_else(|| wrong(format!("the request has no {name}")))?;
        value.as_bool().ok_or_else(|| wrong(format!("{name} is neither true nor false")))
    }

    fn bool_or(&self, name: &str, default: bool) -> Result<bool, Problem> {
        if self.0.contains_key(name) { self.bool(name) } else { Ok(default) }
    }

    fn number_or<T: TryFrom<u64>>(&self, name: &str, default: T) -> Result<T, Problem> {
        let Some(value) = self.0.get(name) else { return Ok(default) };
        value
            .as_u64()
            .and_then(|number| number.try_into().ok())
            .ok_or_else(|| wrong(format!("{name} is not a whole number of this size")))
    }

    fn statements(&self) -> Result<Vec<Signed>, Problem> {
        let list = self.0.get("statements").and_then(Value::as_array);
        let list = list.ok_or_else(|| wrong("the request has no list of statements"))?;
        let read = |value| json::read_signed(value).ok_or_else(|| wrong("that is no statement"));
        list.iter().map(read).collect()
    }

    fn run(&self) -> Result<RunId, Problem> {
        self.text("run")?.parse().map_err(|error| wrong(format!("failed to {error}")))
    }

    fn unlock_key(&self) -> Result<UnlockKey, Problem> {
        let decoded = BASE64.decode(self.text("key")?.as_bytes()).map(Zeroizing::new).ok();
        let key = decoded.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
        key.map(UnlockKey).ok_or_else(|| wrong("key is not base64 of 32 bytes"))
    }

    fn role(&self) -> Result<Role, Problem> {
        let word = self.text_or("role", Role::Member.word())?;
        word.parse().map_err(|error| wrong(format!("failed to {error}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn core(value: Value) -> Command {
        match Request::try_from(&value) {
            Ok(Request::Core(command)) => command,
            other => panic!("{value} became {other:?}"),
        }
    }

    #[test]
    fn statements_go_through_a_line_as_they_are_signed() {
        let signed = Signed {
            bytes: vec![1, 2, 3],
            author: weft_protocol::id::DeviceId::from_bytes([4; 32]),
            signature: [5; 64],
        };
        let line = json!({"ask": "take-statements", "statements": [json::signed(&signed)]});
        assert_eq!(core(line), Command::TakeStatements { statements: vec![signed] });
        for bad in [json!("AAAA"), json!(["AAAA"]), json!(["no base64"]), json!([7]), json!(null)] {
            let line = json!({"ask": "take-statements", "statements": bad});
            assert_eq!(Request::try_from(&line).unwrap_err().kind, ErrorKind::Usage, "{line}");
        }
    }

    #[test]
    fn requests_are_read() {
        let run = RunId::from_bytes([3; 16]);
        for (value, expected) in [
            (json!({"ask": "status"}), Command::Status),
            (json!({"ask": "run"}), Command::Run { prefix: String::new() }),
            (
                json!({"ask": "documents", "kind": "note", "query": "garden", "limit": 5}),
                Command::Documents { kind: "note".into(), query: "garden".into(), limit: 5 },
            ),
            (
                json!({"ask": "audit", "position": 7}),
                Command::Audit { key: None, position: 7, limit: LIMIT_DEFAULT },
            ),
            (
                json!({"ask": "invite", "confirmed_by_itself": true}),
                Command::Invite { role: Role::Member, confirmed_by_itself: true, by_code: false },
            ),
            (
                json!({"ask": "confirm", "yes": true, "role": "admin"}),
                Command::Confirm { yes: true, role: Role::Admin },
            ),
            (
                json!({"ask": "consent", "run": run.to_string(), "step": "2.1", "yes": false}),
                Command::Consent { run, step: StepId(vec![2, 1]), yes: false },
            ),
            (json!({"ask": "cancel", "run": run.to_string()}), Command::Cancel { run }),
            (json!({"ask": "device", "device": "x"}), Command::Device { device: "x".into() }),
            (json!({"ask": "statements"}), Command::Statements),
            (json!({"ask": "trust-log"}), Command::TrustLog { limit: LIMIT_DEFAULT }),
            (
                json!({"ask": "rename", "device": null, "name": "house"}),
                Command::Rename { device: None, name: "house".parse().unwrap() },
            ),
            (
                json!({"ask": "rename", "device": "phone", "name": "pocket"}),
                Command::Rename { device: Some("phone".into()), name: "pocket".parse().unwrap() },
            ),
            (
                json!({"ask": "set-role", "device": "phone", "role": "admin"}),
                Command::SetRole { device: "phone".into(), role: Role::Admin, confirmed: false },
            ),
            (json!({"ask": "keep", "device": "phone"}), Command::Keep { device: "phone".into() }),
        ] {
            assert_eq!(core(value), expected);
        }
    }

    #[test]
    fn what_makes_no_sense_says_why() {
        for (value, expected) in [
            (json!([]), "not an object"),
            (json!({}), "no ask"),
            (json!({"ask": "explode"}), "\"explode\""),
            (json!({"ask": "audit", "position": -1}), "position"),
            (json!({"ask": "consent", "run": "x", "step": "1", "yes": true}), "a run id"),
            (json!({"ask": "confirm", "yes": "yes"}), "neither true nor false"),
            (json!({"ask": "invite", "role": "king"}), "king"),
            (json!({"ask": "set-role", "device": "phone"}), "no role"),
            (json!({"ask": "rename", "device": "phone", "name": " x"}), "as a name"),
            (json!({"ask": "say", "words": "x"}), "local_time"),
        ] {
            let problem = Request::try_from(&value).expect_err("it makes no sense");
            assert_eq!(problem.kind, ErrorKind::Usage);
            assert!(problem.message.contains(expected), "{expected:?} is not in {problem}");
        }
        assert!(read(b"{\"id\":4,").1.is_err());
        assert_eq!(read(b"{\"id\":4}").0, 4);
    }

    #[test]
    fn a_key_comes_back_as_it_went_and_shows_nowhere() {
        let key = UnlockKey::from([7; 32]);
        let request = Request::try_from(&key.to_json()).unwrap();
        assert_eq!(format!("{request:?}"), "Unlock(UnlockKey(..))");
        assert_eq!(request, Request::Unlock(key));
        for bad in ["", "AAAA", "no base64 at all"] {
            let problem = Request::try_from(&json!({"ask": "unlock", "key": bad})).unwrap_err();
            assert_eq!(problem.message, "key is not base64 of 32 bytes");
        }
    }

    #[test]
    fn words_and_files_come_back_as_they_went() {
        let say = Say {
            words: "summarize report.pdf".into(),
            local_time: "2026-03-10T09:00:00".into(),
            time_zone: "Europe/Vienna".into(),
            plan_only: false,
            files: [("report.pdf".to_owned(), vec![0, 255, 10, 13])].into(),
            can_ask: true,
        };
        assert_eq!(Request::try_from(&say.to_json()), Ok(Request::Say(say)));
    }
}
