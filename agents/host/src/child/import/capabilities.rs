//! The interface `capabilities`.

use wasmtime::component::{HasSelf, Linker};
use weft_protocol::{host_call::HostCall, manifest::CapabilityName, value::Value};

use super::{
    State,
    bindings::weft::agent::{
        capabilities::{self, Host},
        types::Error,
    },
    from_json, invalid, to_json,
};

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    capabilities::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl Host for State {
    fn invoke(
        &mut self,
        capability: String,
        arguments: String,
    ) -> wasmtime::Result<Result<String, Error>> {
        let capability = match capability.parse::<CapabilityName>() {
            Ok(capability) => capability,
            Err(error) => return Ok(Err(invalid(format!("failed to {error}")))),
        };
        let Ok(arguments @ Value::Map(_)) = from_json(&arguments) else {
            return Ok(Err(invalid("arguments must be a JSON object")));
        };
        let answer = self.ask(HostCall::Invoke { capability, arguments })?;
        Ok(answer.map(|output| to_json(&output)).map_err(Into::into))
    }
}
