//! The interface `timers`.

use wasmtime::component::{HasSelf, Linker};
use weft_protocol::{
    host_call::{self, HostCall},
    id::TimerId,
    value::Value,
};

use super::{
    State,
    bindings::weft::agent::{
        timers::{self, Due, Host, Timer},
        types::Error,
    },
    invalid, misunderstood, words,
};

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    timers::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl Host for State {
    fn set(
        &mut self,
        due: Due,
        label: String,
    ) -> wasmtime::Result<Result<(String, String), Error>> {
        let due = match due {
            Due::After(millis) => host_call::Due::After(millis),
            Due::At(time) => host_call::Due::At(time),
        };
        Ok(match self.ask(HostCall::TimerSet { due, label })? {
            Ok(timer) => match timer.get("id").and_then(Value::as_text) {
                Some(id) => Ok((id.to_owned(), words(timer.get("due")))),
                None => Err(misunderstood("timers.set")),
            },
            Err(error) => Err(error.into()),
        })
    }

    fn list(&mut self) -> wasmtime::Result<Result<Vec<Timer>, Error>> {
        let answer = match self.ask(HostCall::TimerList)? {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error.into())),
        };
        let timers = answer.as_list().and_then(|list| list.iter().map(timer).collect());
        Ok(timers.ok_or_else(|| misunderstood("timers.list")))
    }

    fn cancel(&mut self, id: String) -> wasmtime::Result<Result<bool, Error>> {
        let id = match id.parse::<TimerId>() {
            Ok(id) => id,
            Err(error) => return Ok(Err(invalid(format!("failed to {error}")))),
        };
        Ok(match self.ask(HostCall::TimerCancel { id })? {
            Ok(Value::Bool(confirmed)) => Ok(confirmed),
            Ok(_) => Err(misunderstood("timers.cancel")),
            Err(error) => Err(error.into()),
        })
    }
}

fn timer(value: &Value) -> Option<Timer> {
    Some(Timer {
        id: value.get("id")?.as_text()?.to_owned(),
        label: words(value.get("label")),
        due: words(value.get("due")),
        fires_on: words(value.get("fires_on")),
    })
}
