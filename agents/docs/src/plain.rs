//! Plain text and Markdown.

/// A text with more damage than one letter in so many was never one.
const LETTERS_TO_DAMAGE: usize = 10;

/// The text of a file, or `None` if it is no text.
///
/// UTF-8, or UTF-16 behind a byte order mark. Of text in an older encoding, what is no UTF-8 becomes
/// `�`.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    match bytes {
        [0xff, 0xfe, rest @ ..] => return utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => return utf16(rest, u16::from_be_bytes),
        _ => {}
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.contains(&0) {
        return None;
    }
    readable(String::from_utf8_lossy(bytes).into_owned())
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (units, _) = bytes.as_chunks::<2>();
    readable(
        char::decode_utf16(units.iter().map(|bytes| unit(*bytes)))
            .map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect(),
    )
}

fn readable(text: String) -> Option<String> {
    let damaged = text.chars().filter(|char| *char == char::REPLACEMENT_CHARACTER).count();
    (damaged * LETTERS_TO_DAMAGE <= text.chars().count()).then_some(text)
}
