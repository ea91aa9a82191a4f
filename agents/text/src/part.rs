//! Splitting a text into parts that fit.

/// Ends of a text's pieces, from the coarsest: a part ends at the last one that fits.
const ENDS: [&[&str]; 4] = [&["\n\n"], &["\n"], &[". ", "! ", "? ", "; "], &[" "]];

/// Splits a text into trimmed parts of at most `bytes_max` bytes, which must be at least 4: after a
/// paragraph where one ends in the later half, else after a line, a sentence, a word, a letter.
pub(crate) fn split(text: &str, bytes_max: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while rest.len() > bytes_max {
        let window = &rest[..rest.floor_char_boundary(bytes_max)];
        let end = ENDS
            .iter()
            .find_map(|ends| {
                let last = ends.iter().filter_map(|end| Some(window.rfind(end)? + end.len())).max();
                last.filter(|end| *end > bytes_max / 2)
            })
            .unwrap_or(window.len());
        parts.push(rest[..end].trim().to_owned());
        rest = rest[end..].trim_start();
    }
    if !rest.is_empty() {
        parts.push(rest.to_owned());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_parts_where_the_text_does() {
        let cases: [(&str, &[&str]); 6] = [
            ("", &[]),
            (" short ", &["short"]),
            ("first paragraph\n\nsecond one", &["first paragraph", "second one"]),
            ("It surely is so. And so it is.", &["It surely is so.", "And so it is."]),
            ("words without any end at all", &["words without any", "end at all"]),
            ("ääääääääääääää", &["ääääääääää", "ääää"]),
        ];
        for (text, expected) in cases {
            assert_eq!(split(text, 20), expected, "{text:?}");
        }
    }

    #[test]
    fn loses_nothing_but_blanks() {
        let text: String = (0..500).map(|n| format!("Line {n}; it’s here.\n")).collect();
        let letters = |text: &str| text.split_whitespace().collect::<String>();
        for bytes_max in [4, 7, 50, 3_000] {
            let parts = split(&text, bytes_max);
            assert!(parts.iter().all(|part| part.len() <= bytes_max && !part.is_empty()));
            assert_eq!(letters(&parts.concat()), letters(&text), "{bytes_max}");
        }
    }
}
