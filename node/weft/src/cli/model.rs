//! `weft model`: getting the language model, and how it fares.

use std::{ffi::OsStr, path::PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use weft_api::ErrorKind;
use weft_llm::get::{GetError, Got, Pinned, Source};

use super::{
    Session,
    arguments::ModelGetArguments,
    error::{CommandError, Done},
    node::Node,
    terminal::{items, text},
};
use crate::daemon::home::Home;

/// Gets the default model, verified by its digest, and tells the node where one runs.
pub(super) fn get(session: &Session, arguments: ModelGetArguments) -> Done {
    let terminal = &session.terminal;
    let (folder, name) = destination(session, arguments.to)?;
    if let Some(file) = arguments.from.as_ref().filter(|file| !file.is_file()) {
        let message = format!("there is no file {}", file.display());
        return Err(CommandError::new(ErrorKind::NotFound, message));
    }
    let mut pinned = Pinned::default_model();
    if let Some(name) = name {
        pinned.name = name;
    }
    // Another source must not stand in for a file that was named and is another.
    let sources = match arguments.from {
        Some(file) => vec![Source::File(file)],
        None => Source::defaults(None),
    };
    let bar = ProgressBar::with_draw_target(Some(pinned.bytes), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bytes}/{total_bytes} {wide_bar} {eta}") {
        bar.set_style(style);
    }
    let got = weft_llm::get::get(&pinned, &folder, &sources, &mut |have, _| bar.set_position(have));
    bar.finish_and_clear();
    let (path, is_new) = match got {
        Ok(Got::Already(path)) => (path, false),
        Ok(Got::From(path, _)) => (path, true),
        Err(error) => {
            let is_nowhere = matches!(error, GetError::Nowhere { .. });
            let kind = if is_nowhere { ErrorKind::Failed } else { ErrorKind::Other };
            return Err(CommandError::failed(&error).of_kind(kind));
        }
    };
    super::wait(tell_node(session))?;
    if terminal.is_json() {
        terminal.json(&json!({"path": path, "bytes": pinned.bytes, "new": is_new}))?;
    } else {
        let how = if is_new { "" } else { " was there already" };
        terminal.data(&format!("{}{how}", path.display()))?;
    }
    Ok(None)
}

/// The folder, and the file's name where it is not the model's own.
fn destination(
    session: &Session,
    to: Option<PathBuf>,
) -> Result<(PathBuf, Option<String>), CommandError> {
    let Some(to) = to else {
        if !session.home.is_dir() {
            let message = format!("there is no node's folder at {}", session.home.display());
            return Err(CommandError::new(ErrorKind::NotFound, message)
                .hint("begin with weft init or weft join, or name a file with --to"));
        }
        return Ok((Home::new(&session.home).models(), None));
    };
    let unnamed = || {
        let message = format!("{} names no file", to.display());
        CommandError::new(ErrorKind::Usage, message)
    };
    let name = to.file_name().and_then(OsStr::to_str).ok_or_else(unnamed)?.to_owned();
    let folder = std::path::absolute(&to)
        .ok()
        .and_then(|to| to.parent().map(PathBuf::from))
        .ok_or_else(unnamed)?;
    Ok((folder, Some(name)))
}

/// A node that does not run will see the model when it starts.
async fn tell_node(session: &Session) -> Done {
    let told = match Node::reach(session).await {
        Ok(mut node) => node.get(json!({"ask": "model-changed"})).await.map(drop),
        Err(error) => Err(error),
    };
    match told {
        Err(error) if error.kind() != ErrorKind::NotRunning => Err(error),
        Ok(()) | Err(_) => Ok(None),
    }
}

/// Shows the models on this device.
pub(super) async fn status(session: &Session) -> Done {
    let terminal = &session.terminal;
    let models = Node::reach(session).await?.read(json!({"ask": "models"})).await?;
    if terminal.is_json() {
        terminal.json(&models)?;
        return Ok(None);
    }
    let rows: Vec<_> = items(&models).map(row).collect();
    if rows.is_empty() {
        terminal.note("no model is on this device; weft model get brings one");
        return Ok(None);
    }
    terminal.table(["MODEL", "SIZE", "STATE", "ANSWERS", "PROMPTS"], &rows)?;
    Ok(None)
}

fn row(model: &Value) -> [String; 5] {
    let size = model["bytes"].as_u64().map(|bytes| format!("{} MiB", bytes >> 20));
    let speed = |field: &str| match model[field].as_f64() {
        Some(speed) => format!("{speed:.0} tokens/s"),
        None => "not measured yet".to_owned(),
    };
    let (answers, prompts) = (speed("tokens_per_second"), speed("prompt_tokens_per_second"));
    [text(model, "name"), size.unwrap_or_default(), text(model, "state"), answers, prompts]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::Terminal;

    #[test]
    fn a_file_that_was_named_and_is_not_the_model_is_told() {
        let home = tempfile::tempdir().unwrap();
        let session = Session { home: home.path().into(), terminal: Terminal::new(false, 0) };
        let from = Some(home.path().join("none.gguf"));
        let error = get(&session, ModelGetArguments { from, to: None }).expect_err("it is missing");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        std::fs::write(home.path().join("other.gguf"), "another model").unwrap();
        let from = Some(home.path().join("other.gguf"));
        let error = get(&session, ModelGetArguments { from, to: None }).expect_err("it is another");
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(format!("{error:?}").contains("13 bytes"), "{error:?}");
    }

    #[test]
    fn a_model_is_shown_with_what_was_measured_of_it() {
        let model = json!({"name": "small", "bytes": 103 << 20, "state": "idle",
            "tokens_per_second": 30.4, "prompt_tokens_per_second": null});
        assert_eq!(row(&model), ["small", "103 MiB", "idle", "30 tokens/s", "not measured yet"]);
    }

    #[test]
    fn a_model_goes_into_the_home_or_where_it_is_told() {
        let home = tempfile::tempdir().unwrap();
        let session = |home: PathBuf| Session { home, terminal: Terminal::new(false, 0) };
        let (folder, name) = destination(&session(home.path().into()), None).unwrap();
        assert_eq!((folder, name), (home.path().join("models"), None));
        let to = Some(PathBuf::from("/cache/m.gguf"));
        let (folder, name) = destination(&session("/none".into()), to).unwrap();
        assert_eq!((folder, name), ("/cache".into(), Some("m.gguf".into())));
        let missing = destination(&session("/none".into()), None).expect_err("no home");
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
