//! llama.cpp: from a prompt to tokens.

use std::num::NonZeroU32;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Instant;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::model::{LlamaChatMessage, LlamaChatTemplate, LlamaModel};
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use weft_wall::Wall;

use super::text::Text;
use super::{ChildError, Node};
use crate::wire::{Answer, Count, Done, End, GenerateRequest, Request};

/// Tokens of a prompt that are computed at once. A cancel is seen between two such steps: about
/// 0.1 s with a small model on two cores.
const STEP_TOKENS: usize = 128;
/// Tokens are kept among this many of the likeliest, and among those that make up this share.
const TOP_K: i32 = 40;
const TOP_P: f32 = 0.95;
/// A token among the last 64 is made this much less likely: without it, the likeliest answer of a
/// model of 135 million parameters ends in a loop.
const REPEAT_PENALTY: f32 = 1.1;
const REPEAT_TOKENS: i32 = 64;

/// Address space beside the mapped file and the copy that llama.cpp makes of some of it: the
/// context (1.3 GiB for 4,096 tokens of a model of 70 billion parameters), its working memory, and
/// 72 MiB a thread. A file that claims more fails to load, instead of taking the machine with it.
const WORKING_BYTES: u64 = 6 << 30;

/// Stands for a text while the template is applied; nobody writes it by chance, and nothing breaks
/// if somebody does.
const SYSTEM_PLACE: &str = "\u{2402}weft system\u{2403}";
const PROMPT_PLACE: &str = "\u{2402}weft prompt\u{2403}";

/// Loads the file that was given, closes the wall, and answers until the node is gone.
pub(super) fn load_and_serve(
    node: &mut Node,
    context_tokens: u32,
    threads: u32,
) -> Result<(), ChildError> {
    let refused = |error: &dyn std::fmt::Display| ChildError::Load(error.to_string());

    // The file comes from a stranger and llama.cpp parses it: it is parsed behind the first wall.
    let file = weft_wall::file(0)?;
    let bytes = file.metadata().map_err(|error| refused(&error))?.len();
    weft_wall::narrow(
        &[file.as_fd()],
        Some(bytes.saturating_mul(2).saturating_add(WORKING_BYTES)),
    )?;
    let mut backend = LlamaBackend::init().map_err(|error| refused(&error))?;
    backend.void_logs();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let model = LlamaModel::load_from_file(&backend, path, &LlamaModelParams::default())
        .map_err(|error| refused(&error))?;
    drop(file);

    let context_tokens = context_tokens.min(model.n_ctx_train());
    let threads = i32::try_from(threads.max(1)).unwrap_or(1);
    let step = u32::try_from(STEP_TOKENS).unwrap_or(u32::MAX);
    let parameters = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(context_tokens))
        .with_n_batch(step)
        .with_n_ubatch(step)
        .with_n_threads(threads)
        .with_n_threads_batch(threads);
    let context = model.new_context(&backend, parameters).map_err(|error| refused(&error))?;

    // llama.cpp starts its threads anew for each step.
    let proof = weft_wall::enter(Wall { allow_threads: true, memory_bytes: None })?;
    let mut engine = Engine::new(&model, context);
    node.write(&Answer::Ready { context_tokens: engine.context_tokens, wall: proof.to_string() })?;
    engine.serve(node)
}

struct Engine<'model> {
    model: &'model LlamaModel,
    context: LlamaContext<'model>,
    context_tokens: u32,
    /// `None`: the model has no template of its own, so texts follow each other plainly.
    template: Option<LlamaChatTemplate>,
    batch: LlamaBatch<'static>,
    /// The whole steps of the last prompt, which the context still holds.
    ///
    /// Only whole steps, so that a prompt is computed in the same pieces whether its start is
    /// remembered or not, and the answer is the same to the last bit.
    remembered: Vec<LlamaToken>,
}

impl<'model> Engine<'model> {
    fn new(model: &'model LlamaModel, context: LlamaContext<'model>) -> Self {
        Self {
            model,
            context_tokens: context.n_ctx(),
            context,
            template: model.chat_template(None).ok(),
            batch: LlamaBatch::new(STEP_TOKENS, 1),
            remembered: Vec::new(),
        }
    }

    fn serve(&mut self, node: &mut Node) -> Result<(), ChildError> {
        while let Some(request) = node.read()? {
            match request {
                Request::Generate(request) => {
                    let answer = self.generate(node, &request)?;
                    node.write(&answer)?;
                }
                Request::Count { system, prompt } => {
                    let tokens = self.tokens(system.as_deref(), &prompt);
                    let (tokens, context_tokens) = (count(tokens.len()), self.context_tokens);
                    node.write(&Answer::Counted(Count { tokens, context_tokens }))?;
                }
                // It crossed the end of what it was to cancel.
                Request::Cancel => {}
                Request::Load { .. } => return Err(ChildError::OutOfTurn("a second Load")),
            }
        }
        Ok(())
    }

    /// Answers a prompt; an error of the model is an answer, an error of the socket is the end.
    fn generate(
        &mut self,
        node: &mut Node,
        request: &GenerateRequest,
    ) -> Result<Answer, ChildError> {
        let started = Instant::now();
        let tokens = self.tokens(request.system.as_deref(), &request.prompt);
        let answer_max = request.max_tokens.min(self.context_tokens / 2);
        let prompt_max = self.context_tokens - answer_max;
        let prompt_tokens = count(tokens.len());
        if prompt_tokens > prompt_max {
            return Ok(Answer::TooLong { tokens: prompt_tokens, max: prompt_max });
        }
        if tokens.is_empty() {
            return Ok(Answer::Failed("answer nothing: the prompt is empty".to_owned()));
        }
        let reused_tokens = count(self.recall(&tokens));
        let mut done = Done {
            tokens: 0,
            prompt_tokens,
            reused_tokens,
            prompt_millis: 0,
            millis: 0,
            end: End::Cancelled,
        };
        let outcome = self.read_prompt(node, &tokens).and_then(|read| {
            if !read {
                return Ok(());
            }
            done.prompt_millis = millis(started);
            self.answer(node, request, answer_max, &mut done)
        });
        done.millis = millis(started);
        match outcome {
            Ok(()) => Ok(Answer::Done(done)),
            Err(Stop::Model(reason)) => {
                // Whatever the context holds now, nobody knows.
                self.forget();
                Ok(Answer::Failed(reason))
            }
            Err(Stop::Child(error)) => Err(error),
        }
    }

    /// Keeps in the context what this prompt shares with the last one; returns how many tokens.
    fn recall(&mut self, tokens: &[LlamaToken]) -> usize {
        let same = self.remembered.iter().zip(tokens).take_while(|(old, new)| old == new).count();
        // The last token is always computed: its result is where the answer starts.
        let kept = same.min(tokens.len() - 1) / STEP_TOKENS * STEP_TOKENS;
        self.remembered.truncate(kept);
        let cut = self.context.clear_kv_cache_seq(Some(0), Some(count(kept)), None);
        // Some models keep a state that can't be cut; they start over.
        if !matches!(cut, Ok(true)) {
            self.forget();
        }
        self.remembered.len()
    }

    fn forget(&mut self) {
        self.context.clear_kv_cache();
        self.remembered.clear();
    }

    /// Computes what is not remembered; `false` when cancelled.
    fn read_prompt(&mut self, node: &mut Node, tokens: &[LlamaToken]) -> Result<bool, Stop> {
        let mut position = self.remembered.len();
        for step in tokens[position..].chunks(STEP_TOKENS) {
            if node.has_cancelled()? {
                return Ok(false);
            }
            self.batch.clear();
            for token in step {
                let is_last = position + 1 == tokens.len();
                self.batch.add(*token, place(position)?, &[0], is_last).map_err(Stop::model)?;
                position += 1;
            }
            self.context.decode(&mut self.batch).map_err(Stop::model)?;
            if step.len() == STEP_TOKENS {
                self.remembered.extend_from_slice(step);
            }
        }
        Ok(true)
    }

    fn answer(
        &mut self,
        node: &mut Node,
        request: &GenerateRequest,
        answer_max: u32,
        done: &mut Done,
    ) -> Result<(), Stop> {
        let mut sampler = self.sampler(request);
        let mut text = Text::default();
        let mut position = done.prompt_tokens as usize;
        done.end = loop {
            if done.tokens == answer_max {
                break End::Limit;
            }
            if node.has_cancelled()? {
                break End::Cancelled;
            }
            // `sample` also tells the sampler which token it was.
            let token = sampler.sample(&self.context, self.batch.n_tokens() - 1);
            if self.model.vocab().is_eog(token) {
                break End::Finished;
            }
            done.tokens += 1;
            // Longer than nearly all pieces of text; for others it grows.
            let mut piece = Vec::with_capacity(64);
            self.model.vocab().token_to_piece_into(token, &mut piece, false, None);
            say(node, text.push(&piece))?;
            self.batch.clear();
            self.batch.add(token, place(position)?, &[0], true).map_err(Stop::model)?;
            self.context.decode(&mut self.batch).map_err(Stop::model)?;
            position += 1;
        };
        say(node, text.finish())
    }

    fn sampler(&self, request: &GenerateRequest) -> LlamaSampler {
        let vocabulary = self.model.n_vocab();
        let repeat = LlamaSampler::penalties(vocabulary, REPEAT_TOKENS, REPEAT_PENALTY, 0.0, 0.0);
        if request.temperature > 0.0 {
            LlamaSampler::chain_simple([
                repeat,
                LlamaSampler::top_k(TOP_K),
                LlamaSampler::top_p(TOP_P, 1),
                LlamaSampler::temp(request.temperature),
                LlamaSampler::dist(request.seed),
            ])
        } else {
            LlamaSampler::chain_simple([repeat, LlamaSampler::greedy()])
        }
    }

    /// The prompt in the model's own template.
    ///
    /// The template's marks are read as marks, the texts as plain text: a document that contains
    /// `<|im_end|>` stays in its turn.
    fn tokens(&self, system: Option<&str>, prompt: &str) -> Vec<LlamaToken> {
        let joined = system.map(|system| format!("{system}\n\n{prompt}"));
        let rendered = match system {
            // Some templates know no system text; then it leads the prompt.
            Some(_) => self.render(true).filter(|it| it.contains(SYSTEM_PLACE)),
            None => None,
        };
        let (rendered, prompt) = match rendered {
            Some(rendered) => (Some(rendered), prompt),
            None => (self.render(false), joined.as_deref().unwrap_or(prompt)),
        };
        let Some(rendered) = rendered.filter(|it| it.contains(PROMPT_PLACE)) else {
            return self.model.vocab().tokenize(prompt.as_bytes(), true, false);
        };
        let texts = [(SYSTEM_PLACE, system.unwrap_or_default()), (PROMPT_PLACE, prompt)];
        let mut tokens = Vec::new();
        for (piece, is_text) in pieces(&rendered, texts) {
            let is_first = tokens.is_empty();
            tokens.extend(self.model.vocab().tokenize(piece.as_bytes(), is_first, !is_text));
        }
        tokens
    }

    fn render(&self, with_system: bool) -> Option<String> {
        let message = |role: &str, text: &str| LlamaChatMessage::new(role.into(), text.into()).ok();
        let mut messages = Vec::new();
        if with_system {
            messages.push(message("system", SYSTEM_PLACE)?);
        }
        messages.push(message("user", PROMPT_PLACE)?);
        self.model.apply_chat_template(self.template.as_ref()?, &messages, true).ok()
    }
}

/// Cuts a rendered template at the places and puts the texts there; `true` marks a text.
fn pieces<'text>(rendered: &'text str, texts: [(&str, &'text str); 2]) -> Vec<(&'text str, bool)> {
    let mut pieces = Vec::new();
    let mut rest = rendered;
    loop {
        let found = texts.iter().filter_map(|(place, text)| Some((rest.find(place)?, place, text)));
        let Some((at, place, text)) = found.min_by_key(|(at, ..)| *at) else { break };
        pieces.push((&rest[..at], false));
        pieces.push((text, true));
        rest = &rest[at + place.len()..];
    }
    pieces.push((rest, false));
    pieces.retain(|(piece, _)| !piece.is_empty());
    pieces
}

/// Why an answer stops half way.
enum Stop {
    Model(String),
    Child(ChildError),
}

impl Stop {
    fn model(error: impl std::fmt::Display) -> Self {
        Self::Model(format!("compute: {error}"))
    }
}

impl From<ChildError> for Stop {
    fn from(error: ChildError) -> Self {
        Self::Child(error)
    }
}

fn say(node: &mut Node, text: String) -> Result<(), Stop> {
    if text.is_empty() { Ok(()) } else { Ok(node.write(&Answer::Token(text))?) }
}

fn place(position: usize) -> Result<i32, Stop> {
    i32::try_from(position).map_err(Stop::model)
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_where_the_template_puts_them() {
        let rendered = format!("<s>{SYSTEM_PLACE}</s><u>{PROMPT_PLACE}</u><a>");
        let texts = [(SYSTEM_PLACE, "be brief"), (PROMPT_PLACE, "a </u> b")];
        assert_eq!(
            pieces(&rendered, texts),
            [
                ("<s>", false),
                ("be brief", true),
                ("</s><u>", false),
                ("a </u> b", true),
                ("</u><a>", false),
            ]
        );
    }

    #[test]
    fn a_text_that_holds_a_place_is_not_cut() {
        let texts = [(SYSTEM_PLACE, ""), (PROMPT_PLACE, SYSTEM_PLACE)];
        assert_eq!(pieces(PROMPT_PLACE, texts), [(SYSTEM_PLACE, true)]);
    }
}
