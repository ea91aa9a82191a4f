//! Characters out of tokens: a token may end in the middle of one.

/// Collects bytes and gives out whole characters.
#[derive(Debug, Default)]
pub(super) struct Text {
    pending: Vec<u8>,
}

impl Text {
    /// Adds a token's bytes; returns what is whole. Bytes that can't become a character turn into
    /// U+FFFD.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut whole = String::new();
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(text) => {
                    whole.push_str(text);
                    self.pending.clear();
                    return whole;
                }
                Err(error) => {
                    let (good, bad) = self.pending.split_at(error.valid_up_to());
                    whole.push_str(&String::from_utf8_lossy(good));
                    let Some(length) = error.error_len() else {
                        self.pending = bad.to_vec();
                        return whole;
                    };
                    whole.push(char::REPLACEMENT_CHARACTER);
                    self.pending = bad[length..].to_vec();
                }
            }
        }
    }

    /// What is left at the end, if anything.
    pub(super) fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_cut_between_tokens_come_out_whole() {
        let text = "naïve 🧵 weft";
        for size in 1..=text.len() {
            let mut collected = Text::default();
            let mut out: String =
                text.as_bytes().chunks(size).map(|bytes| collected.push(bytes)).collect();
            out.push_str(&collected.finish());
            assert_eq!(out, text, "in pieces of {size}");
        }
    }

    #[test]
    fn bytes_that_are_no_character_are_replaced_and_lose_nothing_else() {
        let mut text = Text::default();
        assert_eq!(text.push(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(text.push(b"\xf0\x9f"), "");
        assert_eq!(text.push(b"c"), "\u{fffd}c");
        assert_eq!(text.push(b"\xe2\x82"), "");
        assert_eq!(text.finish(), "\u{fffd}");
    }
}
