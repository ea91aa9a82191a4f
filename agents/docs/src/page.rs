//! One page of a PDF: its drawing instructions, read for the text that they show.
//!
//! A page says where each piece of text stands, not where words and lines end. So the pen is moved as
//! the instructions say (PDF 32000-1, sections 8.3 and 9.4), and a piece that does not stand where
//! the one before it ended begins a word, a line or a paragraph.

use std::collections::BTreeMap;

use lopdf::{Dictionary, Document, Encoding, Object, ObjectId, content::Content};

use crate::pdf::STREAM_BYTES_MAX;

/// A gap of this part of the letters' size is a blank; the narrowest in print are a fifth.
const BLANK: f32 = 0.15;

/// A step of this part of the letters' size up or down is another line; indices stay on theirs.
const LINE: f32 = 0.6;

/// A step of this many sizes is another paragraph; lines stand 1.1 to 1.5 apart.
const PARAGRAPH: f32 = 1.75;

/// Levels of drawings within drawings that are followed.
const DEPTH_MAX: usize = 8;

/// The text of a page.
pub(crate) fn text(document: &Document, page: ObjectId) -> lopdf::Result<String> {
    let content = document.get_page_content_with_limit(page, STREAM_BYTES_MAX)?;
    let fonts = document.get_page_fonts(page)?;
    let (own, inherited) = document.get_page_resources(page)?;
    let resources: Vec<&Dictionary> = own
        .into_iter()
        .chain(inherited.into_iter().filter_map(|id| document.get_dictionary(id).ok()))
        .collect();
    let mut pen = Pen::default();
    draw(document, &mut pen, &content, &faces(document, fonts), &resources, 0)?;
    Ok(pen.text)
}

/// A matrix of PDF: `[a b c d e f]` takes (x, y) to (ax + cy + e, bx + dy + f).
type Matrix = [f32; 6];

const IDENTITY: Matrix = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];

/// First `inner`, then `outer`.
fn times(inner: Matrix, outer: Matrix) -> Matrix {
    let [a, b, c, d, e, f] = inner;
    let [p, q, r, s, t, u] = outer;
    [
        a * p + b * r,
        a * q + b * s,
        c * p + d * r,
        c * q + d * s,
        e * p + f * r + t,
        e * q + f * s + u,
    ]
}

/// A font: what its codes mean and how wide they are.
struct Face<'a> {
    encoding: Encoding<'a>,
    /// Codes have two bytes.
    is_wide: bool,
    /// Widths in thousandths of the font's size.
    widths: BTreeMap<u32, f32>,
    width_else: f32,
}

type Faces<'a> = BTreeMap<Vec<u8>, Face<'a>>;

fn faces<'a>(document: &'a Document, fonts: BTreeMap<Vec<u8>, &'a Dictionary>) -> Faces<'a> {
    fonts.into_iter().filter_map(|(name, font)| Some((name, Face::new(document, font)?))).collect()
}

impl<'a> Face<'a> {
    /// `None` for a font whose codes cannot be read.
    fn new(document: &'a Document, font: &'a Dictionary) -> Option<Self> {
        let encoding = font.get_font_encoding_with_limit(document, STREAM_BYTES_MAX).ok()?;
        let is_wide = font.get(b"Subtype").and_then(Object::as_name).is_ok_and(|it| it == b"Type0");
        let mut face = Self { encoding, is_wide, widths: BTreeMap::new(), width_else: 500.0 };
        if is_wide {
            face.read_wide_widths(document, font);
        } else {
            face.read_widths(document, font);
        }
        Some(face)
    }

    fn read_widths(&mut self, document: &Document, font: &Dictionary) {
        let first = font.get_deref(b"FirstChar", document).and_then(Object::as_i64).unwrap_or(0);
        let first = u32::try_from(first).unwrap_or(0);
        let widths = font.get_deref(b"Widths", document).and_then(Object::as_array);
        let widths = widths.into_iter().flatten().filter_map(|width| number(document, width));
        self.widths = (first..).zip(widths).collect();
    }

    /// Section 9.7.4.3: `c [w1 w2 …]` for codes from c, `first last w` for a range.
    fn read_wide_widths(&mut self, document: &Document, font: &Dictionary) {
        let descendant = font
            .get_deref(b"DescendantFonts", document)
            .and_then(Object::as_array)
            .and_then(|fonts| fonts.first().ok_or(lopdf::Error::DictKey(String::new())))
            .and_then(|font| document.dereference(font))
            .and_then(|(_, font)| font.as_dict());
        let Ok(descendant) = descendant else { return };
        let width_else = descendant.get_deref(b"DW", document);
        self.width_else = width_else.ok().and_then(|it| number(document, it)).unwrap_or(1000.0);
        let Ok(entries) = descendant.get_deref(b"W", document).and_then(Object::as_array) else {
            return;
        };
        let code = |object: &Object| {
            let code = object.as_i64().ok().and_then(|code| u32::try_from(code).ok());
            code.filter(|code| *code <= u32::from(u16::MAX))
        };
        let mut entries = entries.iter();
        while let (Some(first), Some(second)) = (entries.next(), entries.next()) {
            let (Some(first), Ok((_, second))) = (code(first), document.dereference(second)) else {
                return;
            };
            if let Ok(widths) = second.as_array() {
                let widths = widths.iter().filter_map(|width| number(document, width));
                self.widths.extend((first..).zip(widths));
            } else if let (Some(last), Some(width)) = (code(second), entries.next()) {
                let Some(width) = number(document, width) else { return };
                self.widths.extend((first..=last).map(|code| (code, width)));
            } else {
                return;
            }
        }
    }

    fn width(&self, code: u32) -> f32 {
        self.widths.get(&code).copied().unwrap_or(self.width_else)
    }
}

/// A number, also where it stands behind a reference.
fn number(document: &Document, object: &Object) -> Option<f32> {
    let (_, object) = document.dereference(object).ok()?;
    object.as_float().ok().filter(|number| number.is_finite())
}

/// What `q` keeps and `Q` brings back.
#[derive(Clone)]
struct State {
    /// From the drawing to the page.
    to_page: Matrix,
    font: Vec<u8>,
    size: f32,
    leading: f32,
    letter_spacing: f32,
    word_spacing: f32,
    stretch: f32,
}

impl Default for State {
    fn default() -> Self {
        Self {
            to_page: IDENTITY,
            font: Vec::new(),
            size: 0.0,
            leading: 0.0,
            letter_spacing: 0.0,
            word_spacing: 0.0,
            stretch: 1.0,
        }
    }
}

/// Where a piece of text ended on the page, and how large it was.
#[derive(Clone, Copy)]
struct End {
    x: f32,
    y: f32,
    size: f32,
}

struct Pen {
    text: String,
    state: State,
    kept: Vec<State>,
    /// Where the line began.
    line: Matrix,
    /// Where the next letter stands.
    next: Matrix,
    end: Option<End>,
}

impl Default for Pen {
    fn default() -> Self {
        Self {
            text: String::new(),
            state: State::default(),
            kept: Vec::new(),
            line: IDENTITY,
            next: IDENTITY,
            end: None,
        }
    }
}

/// Follows the instructions of a page, or of a drawing within it.
fn draw(
    document: &Document,
    pen: &mut Pen,
    content: &[u8],
    faces: &Faces<'_>,
    resources: &[&Dictionary],
    depth: usize,
) -> lopdf::Result<()> {
    for operation in Content::decode(content)?.operations {
        let operands = &operation.operands;
        let at = |index: usize| operands.get(index).and_then(|it| number(document, it));
        match operation.operator.as_str() {
            "q" => pen.kept.push(pen.state.clone()),
            "Q" => pen.state = pen.kept.pop().unwrap_or_default(),
            "cm" => {
                if let Some(matrix) = matrix(&at) {
                    pen.state.to_page = times(matrix, pen.state.to_page);
                }
            }
            "BT" => (pen.line, pen.next) = (IDENTITY, IDENTITY),
            "Tf" => {
                let name = operands.first().and_then(|name| name.as_name().ok());
                pen.state.font = name.unwrap_or_default().to_vec();
                pen.state.size = at(1).unwrap_or(0.0);
            }
            "TL" => pen.state.leading = at(0).unwrap_or(0.0),
            "Tc" => pen.state.letter_spacing = at(0).unwrap_or(0.0),
            "Tw" => pen.state.word_spacing = at(0).unwrap_or(0.0),
            "Tz" => pen.state.stretch = at(0).unwrap_or(100.0) / 100.0,
            "Td" => pen.begin_line(at(0).unwrap_or(0.0), at(1).unwrap_or(0.0)),
            "TD" => {
                pen.state.leading = -at(1).unwrap_or(0.0);
                pen.begin_line(at(0).unwrap_or(0.0), at(1).unwrap_or(0.0));
            }
            "Tm" => {
                if let Some(matrix) = matrix(&at) {
                    (pen.line, pen.next) = (matrix, matrix);
                }
            }
            "T*" => pen.begin_line(0.0, -pen.state.leading),
            "Tj" | "'" | "\"" => {
                if operation.operator == "\"" {
                    pen.state.word_spacing = at(0).unwrap_or(0.0);
                    pen.state.letter_spacing = at(1).unwrap_or(0.0);
                }
                if operation.operator != "Tj" {
                    pen.begin_line(0.0, -pen.state.leading);
                }
                if let Some(Object::String(codes, _)) = operands.last() {
                    pen.show(faces, codes);
                }
            }
            "TJ" => {
                let pieces = operands.first().and_then(|pieces| pieces.as_array().ok());
                for piece in pieces.into_iter().flatten() {
                    if let Object::String(codes, _) = piece {
                        pen.show(faces, codes);
                    } else if let Some(back) = number(document, piece) {
                        let state = &pen.state;
                        pen.advance(-back / 1000.0 * state.size * state.stretch);
                    }
                }
            }
            "Do" if depth < DEPTH_MAX => {
                let name = operands.first().and_then(|name| name.as_name().ok());
                if let Some(name) = name {
                    draw_within(document, pen, name, faces, resources, depth)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Follows a drawing that a page names (section 8.10); pictures have no text.
fn draw_within(
    document: &Document,
    pen: &mut Pen,
    name: &[u8],
    faces: &Faces<'_>,
    resources: &[&Dictionary],
    depth: usize,
) -> lopdf::Result<()> {
    let drawing = resources.iter().find_map(|resources| {
        let drawings = resources.get_deref(b"XObject", document).and_then(Object::as_dict).ok()?;
        drawings.get_deref(name, document).and_then(Object::as_stream).ok()
    });
    let Some(drawing) = drawing else { return Ok(()) };
    let subtype = drawing.dict.get_deref(b"Subtype", document).and_then(Object::as_name);
    if !subtype.is_ok_and(|subtype| subtype == b"Form") {
        return Ok(());
    }
    let content = drawing.decompressed_content_with_limit(STREAM_BYTES_MAX);
    let content = content.unwrap_or_else(|_| drawing.content.clone());
    let kept = pen.state.clone();
    if let Ok(entries) = drawing.dict.get_deref(b"Matrix", document).and_then(Object::as_array) {
        let at = |index: usize| entries.get(index).and_then(|it| number(document, it));
        if let Some(matrix) = matrix(&at) {
            pen.state.to_page = times(matrix, pen.state.to_page);
        }
    }
    let own = drawing.dict.get_deref(b"Resources", document).and_then(Object::as_dict);
    let done = match own {
        Ok(own) => {
            let fonts = own.get_deref(b"Font", document).and_then(Object::as_dict);
            let fonts = fonts.into_iter().flatten().filter_map(|(name, font)| {
                let (_, font) = document.dereference(font).ok()?;
                Some((name.clone(), font.as_dict().ok()?))
            });
            let faces = self::faces(document, fonts.collect());
            draw(document, pen, &content, &faces, &[own], depth + 1)
        }
        Err(_) => draw(document, pen, &content, faces, resources, depth + 1),
    };
    pen.state = kept;
    done
}

/// Six operands as a matrix.
fn matrix(at: &impl Fn(usize) -> Option<f32>) -> Option<Matrix> {
    Some([at(0)?, at(1)?, at(2)?, at(3)?, at(4)?, at(5)?])
}

impl Pen {
    fn begin_line(&mut self, x: f32, y: f32) {
        self.line = times([1.0, 0.0, 0.0, 1.0, x, y], self.line);
        self.next = self.line;
    }

    fn advance(&mut self, x: f32) {
        self.next = times([1.0, 0.0, 0.0, 1.0, x, 0.0], self.next);
    }

    /// Shows a piece of text.
    fn show(&mut self, faces: &Faces<'_>, codes: &[u8]) {
        let Some(face) = faces.get(&self.state.font) else { return };
        let Ok(piece) = Document::decode_text(&face.encoding, codes) else { return };
        let [_, _, c, d, x, y] = times(self.next, self.state.to_page);
        let size = self.state.size.abs() * c.hypot(d);
        if let Some(end) = self.end {
            self.text.push_str(between(end, End { x, y, size }, &self.text, &piece));
        }
        self.text.push_str(&piece);

        let State { size: font_size, letter_spacing, word_spacing, stretch, .. } = self.state;
        let advance = |code: u32| {
            let blank = if code == 32 && !face.is_wide { word_spacing } else { 0.0 };
            face.width(code) / 1000.0 * font_size + letter_spacing + blank
        };
        let width: f32 = if face.is_wide {
            codes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|code| advance(u16::from_be_bytes(*code).into()))
                .sum()
        } else {
            codes.iter().map(|code| advance(u32::from(*code))).sum()
        };
        self.advance(width * stretch);
        let [_, _, _, _, x, y] = times(self.next, self.state.to_page);
        self.end = Some(End { x, y, size });
    }
}

/// What stands between two pieces of text.
fn between(end: End, start: End, before: &str, after: &str) -> &'static str {
    let (smaller, larger) = (end.size.min(start.size), end.size.max(start.size));
    let down = end.y - start.y;
    if down.abs() > LINE * larger {
        return if down > PARAGRAPH * smaller || down < 0.0 { "\n\n" } else { "\n" };
    }
    let gap = start.x - end.x;
    let is_apart = gap > BLANK * larger || gap < -larger;
    let has_blank = before.ends_with(char::is_whitespace) || after.starts_with(char::is_whitespace);
    if is_apart && !has_blank { " " } else { "" }
}
