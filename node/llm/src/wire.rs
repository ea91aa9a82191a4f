//! What the node and its model's process say to each other, one CBOR value a frame.
//!
//! ```text
//! node                      child
//!   Load            →
//!                   ←       Ready | Failed (and the child ends)
//!   Generate        →
//!                   ←       Token …, then Done | TooLong | Failed
//!   Cancel          →       (while it generates; a late one is ignored)
//!   Count           →
//!                   ←       Counted | Failed
//! ```
//!
//! Both ends are the same binary, so there are no versions here. The node still bounds what it
//! reads: the child may have been taken over by the file that it parsed.

use minicbor::{Decode, Encode};

/// The longest frame either side takes, in bytes: a prompt of a million characters fits.
pub(crate) const FRAME_MAX: usize = 4 << 20;

/// What to say to the model.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct GenerateRequest {
    /// What the person, or an agent, says. Whatever is in it, it can't leave its turn: the model's
    /// own marks in it are read as plain text.
    #[n(0)]
    pub prompt: String,
    /// How the model is to behave.
    #[n(1)]
    pub system: Option<String>,
    /// The most tokens to answer, at most half of the context.
    #[n(2)]
    pub max_tokens: u32,
    /// Where chance starts. The same request gives the same text on the same machine.
    #[n(3)]
    pub seed: u32,
    /// How much chance: 0 takes the likeliest token each time.
    #[n(4)]
    pub temperature: f32,
}

impl GenerateRequest {
    /// The likeliest answer to this prompt, of at most 512 tokens.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), system: None, max_tokens: 512, seed: 0, temperature: 0.0 }
    }
}

/// Why a text ends where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum End {
    /// The model said that it has finished.
    #[n(0)]
    Finished,
    /// [`GenerateRequest::max_tokens`] is reached.
    #[n(1)]
    Limit,
    /// It was cancelled.
    #[n(2)]
    Cancelled,
}

/// A text that has ended, in figures.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Done {
    /// Tokens of the answer.
    #[n(0)]
    pub tokens: u32,
    /// Tokens of the prompt, template included.
    #[n(1)]
    pub prompt_tokens: u32,
    /// How many of those were still known from the prompt before.
    #[n(2)]
    pub reused_tokens: u32,
    /// Time to read the prompt, in milliseconds.
    #[n(3)]
    pub prompt_millis: u64,
    /// Time for all of it, in milliseconds.
    #[n(4)]
    pub millis: u64,
    /// Why it ended.
    #[n(5)]
    pub end: End,
}

/// How long a prompt is for this model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Count {
    /// Tokens of the prompt as it would be sent, template included.
    #[n(0)]
    pub tokens: u32,
    /// Tokens that prompt and answer may have together.
    #[n(1)]
    pub context_tokens: u32,
}

/// From the node.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Request {
    /// Load the file that was given, as the first message.
    #[n(0)]
    Load {
        /// The most context, in tokens; a model that knows less gets less.
        #[n(0)]
        context_tokens: u32,
        /// Threads to compute with.
        #[n(1)]
        threads: u32,
    },
    #[n(1)]
    Generate(#[n(0)] GenerateRequest),
    #[n(2)]
    Count {
        #[n(0)]
        system: Option<String>,
        #[n(1)]
        prompt: String,
    },
    #[n(3)]
    Cancel,
}

/// From the child.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Answer {
    /// Loaded, and walled in.
    #[n(0)]
    Ready {
        #[n(0)]
        context_tokens: u32,
        /// What was tried at the wall and refused.
        #[n(1)]
        wall: String,
    },
    #[n(1)]
    Token(#[n(0)] String),
    #[n(2)]
    Done(#[n(0)] Done),
    #[n(3)]
    Failed(#[n(0)] String),
    /// The prompt leaves no room for the answer.
    #[n(4)]
    TooLong {
        #[n(0)]
        tokens: u32,
        /// The most that would have been taken with this request's `max_tokens`.
        #[n(1)]
        max: u32,
    },
    #[n(5)]
    Counted(#[n(0)] Count),
}

/// The bytes of a message.
pub(crate) fn encode(message: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(message).expect("memory takes whatever is written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_went() {
        let request =
            GenerateRequest { system: Some("be brief".into()), ..GenerateRequest::new("hi") };
        let bytes = encode(&Request::Generate(request.clone()));
        let back = minicbor::decode::<Request>(&bytes).expect("it was just written");
        assert!(matches!(back, Request::Generate(it) if it == request));

        let bytes = encode(&Answer::TooLong { tokens: 9, max: 7 });
        let back = minicbor::decode::<Answer>(&bytes).expect("it was just written");
        assert!(matches!(back, Answer::TooLong { tokens: 9, max: 7 }));
    }

    #[test]
    fn an_answer_cut_anywhere_is_an_error_and_no_panic() {
        let done = Done {
            tokens: 1,
            prompt_tokens: 2,
            reused_tokens: 0,
            prompt_millis: 3,
            millis: 4,
            end: End::Finished,
        };
        let bytes = encode(&Answer::Done(done));
        for cut in 0..bytes.len() {
            assert!(minicbor::decode::<Answer>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
