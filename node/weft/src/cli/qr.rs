//! A QR code as a terminal shows it.

use std::fmt::Write as _;

use fast_qr::{ECL, QRBuilder};

/// Light modules around the code, as the standard asks for.
const QUIET_ZONE: usize = 4;

/// Colours that themes leave alone: white and black of the 256.
const LIGHT: u8 = 231;
const DARK: u8 = 16;

/// Draws text as a QR code, two modules in a character. Light modules have their own colour, since a
/// dark terminal would turn the code inside out; without colours a dark terminal is taken for granted.
/// `None`: the text is too long for a code.
pub(super) fn draw(text: &str, is_colourful: bool) -> Option<String> {
    let code = QRBuilder::new(text).ecl(ECL::M).build().ok()?;
    let size = code.size + 2 * QUIET_ZONE;
    // Beyond the code all is light.
    let is_dark = |y: usize, x: usize| {
        let inside = |at: usize| at.checked_sub(QUIET_ZONE).filter(|at| *at < code.size);
        inside(y).zip(inside(x)).is_some_and(|(y, x)| code[y][x].value())
    };
    let mut drawn = String::new();
    for y in (0..size).step_by(2) {
        let mut last = None;
        for x in 0..size {
            let (top, bottom) = (is_dark(y, x), is_dark(y + 1, x));
            if is_colourful {
                let colour = |dark| if dark { DARK } else { LIGHT };
                if last.replace((top, bottom)) != Some((top, bottom)) {
                    // Writing to memory does not fail.
                    write!(drawn, "\x1b[38;5;{};48;5;{}m", colour(top), colour(bottom)).ok();
                }
                drawn.push('▀');
            } else {
                drawn.push(match (top, bottom) {
                    (false, false) => '█',
                    (false, true) => '▀',
                    (true, false) => '▄',
                    (true, true) => ' ',
                });
            }
        }
        drawn.push_str(if is_colourful { "\x1b[0m\n" } else { "\n" });
    }
    Some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: &str = "WEFT1:ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

    /// The modules of a drawing, dark ones true, two rows a line.
    fn modules(drawn: &str) -> Vec<Vec<bool>> {
        let halves = |line: &str| -> Vec<(bool, bool)> {
            if !line.contains('\x1b') {
                return line
                    .chars()
                    .map(|c| (matches!(c, '▄' | ' '), matches!(c, '▀' | ' ')))
                    .collect();
            }
            let mut pixels = Vec::new();
            for part in line.split("\x1b[").filter(|part| part.contains('▀')) {
                let (colours, halves) = part.split_once('m').expect("a colour ends");
                let colours: Vec<_> = colours.split(';').collect();
                let dark = |at: usize| colours[at] == "16";
                pixels.extend(halves.chars().map(|_| (dark(2), dark(5))));
            }
            pixels
        };
        let lines = drawn.lines().map(halves);
        lines
            .flat_map(|line| {
                let (top, bottom): (Vec<_>, Vec<_>) = line.into_iter().unzip();
                [top, bottom]
            })
            .collect()
    }

    #[test]
    fn both_drawings_show_the_code_within_its_quiet_zone() {
        let code = QRBuilder::new(TICKET).ecl(ECL::M).build().expect("it fits");
        for is_colourful in [true, false] {
            let drawn = modules(&draw(TICKET, is_colourful).expect("it fits"));
            for (y, row) in drawn.iter().enumerate() {
                assert_eq!(row.len(), code.size + 2 * QUIET_ZONE);
                for (x, dark) in row.iter().enumerate() {
                    let zone = QUIET_ZONE..QUIET_ZONE + code.size;
                    let expected = zone.contains(&y)
                        && zone.contains(&x)
                        && code[y - QUIET_ZONE][x - QUIET_ZONE].value();
                    assert_eq!(*dark, expected, "row {y}, column {x}");
                }
            }
            assert!(drawn.len() >= code.size + 2 * QUIET_ZONE);
        }
    }

    #[test]
    fn text_beyond_any_code_is_not_drawn() {
        assert_eq!(draw(&"A".repeat(5_000), true), None);
    }
}
