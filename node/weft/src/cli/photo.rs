//! A photograph or a screenshot of a ticket's QR code.

use std::{
    fs::File,
    io::{self, Cursor, Read as _},
    path::Path,
};

use png::{ColorType, Transformations};
use rqrr::PreparedImage;
use thiserror::Error;
use weft_protocol::ticket::{ParseTicketError, Ticket};
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

/// The largest file: several times what a phone's camera writes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The most pixels: what phones' cameras take, at a byte or four each.
const PIXELS_MAX: usize = 50_000_000;

/// The longest side in pixels: a panorama, and no more than a decoder need be told.
const SIDE_MAX: usize = 30_000;

/// The sizes, by the longer side, in which a code is looked for. Grain and moiré are gone in a small
/// picture, a code far away is readable only in a large one.
const SIDES: [usize; 3] = [700, 1_600, 4_000];

/// A picture smaller than this is looked at enlarged, too: a module needs some pixels.
const SMALL_SIDE: usize = 400;

/// Why a picture gives no ticket.
#[derive(Debug, Error)]
pub(super) enum PhotoError {
    /// The file was not read.
    #[error("read the picture")]
    File(#[from] io::Error),
    /// The file is larger than any picture.
    #[error("read the picture: it is larger than 64 MiB")]
    TooLarge,
    /// It is another kind of file.
    #[error("read the picture: it is neither PNG nor JPEG")]
    NotAPicture,
    /// It begins as one, and is none.
    #[error("read the picture: {0}")]
    Damaged(String),
    /// There are too many pixels in it.
    #[error("read the picture: {0} × {1} pixels are more than 50 million")]
    TooManyPixels(usize, usize),
    /// No code is in it.
    #[error("find a QR code in the picture")]
    NoCode,
    /// What is in it is no ticket.
    #[error("find a ticket in the picture: the QR code in it is of something else")]
    NoTicket,
    /// The ticket in it is not as it was written.
    #[error(transparent)]
    Ticket(ParseTicketError),
    /// There are several.
    #[error("choose between the tickets in the picture: there are several")]
    Several,
}

/// The one ticket in the picture at `path`.
pub(super) fn ticket(path: &Path) -> Result<Ticket, PhotoError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(PhotoError::TooLarge);
    }
    read(&Grey::decode(&bytes)?)
}

/// A picture in shades of grey, row by row.
struct Grey {
    width: usize,
    height: usize,
    shades: Vec<u8>,
}

impl Grey {
    fn decode(bytes: &[u8]) -> Result<Self, PhotoError> {
        match bytes {
            [0x89, b'P', b'N', b'G', ..] => Self::from_png(bytes),
            [0xff, 0xd8, 0xff, ..] => Self::from_jpeg(bytes),
            _ => Err(PhotoError::NotAPicture),
        }
    }

    fn from_png(bytes: &[u8]) -> Result<Self, PhotoError> {
        let damaged = |error: png::DecodingError| PhotoError::Damaged(error.to_string());
        // The largest that is taken has four bytes for each pixel, and as many again pass through.
        let limits = png::Limits { bytes: 2 * 4 * PIXELS_MAX };
        let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
        decoder.set_transformations(Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(damaged)?;
        let (width, height) = (reader.info().width as usize, reader.info().height as usize);
        bounded(width, height)?;
        let len = reader.output_buffer_size().ok_or(PhotoError::TooManyPixels(width, height))?;
        let mut pixels = vec![0; len];
        let frame = reader.next_frame(&mut pixels).map_err(damaged)?;
        pixels.truncate(frame.buffer_size());
        let on_white = |shade: u8, alpha: u8| {
            let (shade, alpha) = (u32::from(shade), u32::from(alpha));
            ((shade * alpha + 255 * (255 - alpha)) / 255) as u8
        };
        let shades = match frame.color_type {
            ColorType::Grayscale | ColorType::Indexed => pixels,
            ColorType::GrayscaleAlpha => {
                pixels.as_chunks().0.iter().map(|&[grey, alpha]| on_white(grey, alpha)).collect()
            }
            ColorType::Rgb => pixels.as_chunks().0.iter().map(|&[r, g, b]| luma(r, g, b)).collect(),
            ColorType::Rgba => {
                let chunks = pixels.as_chunks().0;
                chunks.iter().map(|&[r, g, b, alpha]| on_white(luma(r, g, b), alpha)).collect()
            }
        };
        Self::new(width, height, shades)
    }

    fn from_jpeg(bytes: &[u8]) -> Result<Self, PhotoError> {
        let options = DecoderOptions::default()
            .jpeg_set_out_colorspace(ColorSpace::Luma)
            .set_max_width(SIDE_MAX)
            .set_max_height(SIDE_MAX);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        let damaged = |error: &dyn std::fmt::Debug| PhotoError::Damaged(format!("{error:?}"));
        decoder.decode_headers().map_err(|error| damaged(&error))?;
        let (width, height) =
            decoder.dimensions().ok_or_else(|| PhotoError::Damaged("it has no size".to_owned()))?;
        bounded(width, height)?;
        let shades = decoder.decode().map_err(|error| damaged(&error))?;
        Self::new(width, height, shades)
    }

    fn new(width: usize, height: usize, shades: Vec<u8>) -> Result<Self, PhotoError> {
        if width == 0 || height == 0 || shades.len() != width * height {
            return Err(PhotoError::Damaged("its size is not as it says".to_owned()));
        }
        Ok(Self { width, height, shades })
    }

    /// The same, `factor` times smaller; each pixel is the mean of those that it stands for.
    fn shrunk(&self, factor: usize) -> Self {
        let (width, height) = (self.width / factor, self.height / factor);
        let mut shades = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let rows = (0..factor).map(|row| (y * factor + row) * self.width + x * factor);
                let sum: usize = rows
                    .flat_map(|at| &self.shades[at..at + factor])
                    .map(|shade| usize::from(*shade))
                    .sum();
                shades.push(u8::try_from(sum / (factor * factor)).unwrap_or(u8::MAX));
            }
        }
        Self { width, height, shades }
    }

    /// The same, `factor` times larger.
    fn enlarged(&self, factor: usize) -> Self {
        let (width, height) = (self.width * factor, self.height * factor);
        let at = |index: usize| {
            self.shades[index / width / factor * self.width + index % width / factor]
        };
        Self { width, height, shades: (0..width * height).map(at).collect() }
    }

    /// What the codes in it say; `is_inverted` where dark modules are light, as on a dark terminal.
    fn texts(&self, is_inverted: bool) -> Vec<String> {
        let flip = if is_inverted { u8::MAX } else { 0 };
        let shade = |x: usize, y: usize| self.shades[y * self.width + x] ^ flip;
        let mut prepared = PreparedImage::prepare_from_greyscale(self.width, self.height, shade);
        let grids = prepared.detect_grids();
        grids.iter().filter_map(|grid| Some(grid.decode().ok()?.1)).collect()
    }
}

fn bounded(width: usize, height: usize) -> Result<(), PhotoError> {
    let is_bounded = width <= SIDE_MAX
        && height <= SIDE_MAX
        && width.checked_mul(height).is_some_and(|pixels| pixels <= PIXELS_MAX);
    if is_bounded { Ok(()) } else { Err(PhotoError::TooManyPixels(width, height)) }
}

/// How bright a colour is, by the weights of BT.601.
fn luma(r: u8, g: u8, b: u8) -> u8 {
    ((299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b)) / 1_000) as u8
}

/// Looks for the ticket in several sizes, and in each also inside out.
fn read(picture: &Grey) -> Result<Ticket, PhotoError> {
    let side = picture.width.max(picture.height);
    let mut factors: Vec<usize> = SIDES.iter().map(|wanted| side.div_ceil(*wanted)).collect();
    factors.dedup();
    let mut nothing = PhotoError::NoCode;
    let mut look = |picture: &Grey| {
        for is_inverted in [false, true] {
            match the_one(&picture.texts(is_inverted)) {
                Ok(ticket) => return Some(Ok(ticket)),
                Err(PhotoError::Several) => return Some(Err(PhotoError::Several)),
                Err(PhotoError::NoCode) => {}
                Err(found) => nothing = found,
            }
        }
        None
    };
    for factor in factors {
        let found = if factor == 1 { look(picture) } else { look(&picture.shrunk(factor)) };
        if let Some(found) = found {
            return found;
        }
    }
    if side < SMALL_SIDE {
        for factor in [2, 4] {
            if let Some(found) = look(&picture.enlarged(factor)) {
                return found;
            }
        }
    }
    Err(nothing)
}

/// The one ticket among these texts.
fn the_one(texts: &[String]) -> Result<Ticket, PhotoError> {
    let mut found: Option<Ticket> = None;
    let mut nothing = PhotoError::NoCode;
    for text in texts {
        match text.parse() {
            Ok(ticket) if found.as_ref().is_some_and(|found| *found != ticket) => {
                return Err(PhotoError::Several);
            }
            Ok(ticket) => found = Some(ticket),
            Err(ParseTicketError::NotATicket | ParseTicketError::TooLong(_)) => {
                nothing = PhotoError::NoTicket;
            }
            Err(wrong @ (ParseTicketError::OtherVersion | ParseTicketError::Damaged)) => {
                nothing = PhotoError::Ticket(wrong);
            }
        }
    }
    found.ok_or(nothing)
}

#[cfg(test)]
mod tests {
    use fast_qr::{ECL, QRBuilder};
    use jpeg_encoder::{ColorType as JpegColor, Encoder as JpegEncoder};
    use weft_protocol::{
        device::Role,
        id::{EndpointId, FabricId},
        ticket::{FabricPrefix, TicketSecret},
    };

    use super::*;
    use crate::cli::qr;

    fn a_ticket(number: u8) -> Ticket {
        Ticket {
            fabric: FabricPrefix::from(FabricId::from_bytes([number; 32])),
            endpoint: EndpointId::from_bytes([number; 32]),
            addresses: vec![
                "/ip4/192.168.1.20/udp/41234/quic-v1".parse().unwrap(),
                "/ip4/192.168.1.20/tcp/41234".parse().unwrap(),
                "/ip6/fd00::20/udp/41234/quic-v1".parse().unwrap(),
            ],
            secret: TicketSecret::from_bytes([number; 16]),
            valid_s: 120,
            role: Role::Member,
        }
    }

    /// A code's modules with its quiet zone, so many pixels each.
    fn drawn(text: &str, scale: usize) -> Grey {
        let code = QRBuilder::new(text).ecl(ECL::M).build().unwrap();
        let side = (code.size + 8) * scale;
        let is_dark = |at: usize| {
            let (y, x) = (at / side / scale, at % side / scale);
            let inside = |at: usize| (4..4 + code.size).contains(&at);
            inside(y) && inside(x) && code[y - 4][x - 4].value()
        };
        let shades = (0..side * side).map(|at| if is_dark(at) { 0 } else { 255 }).collect();
        Grey { width: side, height: side, shades }
    }

    /// Turned around its middle, on a grey ground, with some noise.
    fn turned(picture: &Grey, degrees: f64) -> Grey {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let side = picture.width + picture.width / 2;
        let (middle, centre) = (side as f64 / 2.0, picture.width as f64 / 2.0);
        let mut noise = 1_u32;
        let mut shades = Vec::with_capacity(side * side);
        for at in 0..side * side {
            let (y, x) = ((at / side) as f64 - middle, (at % side) as f64 - middle);
            let (from_x, from_y) = (cos * x + sin * y + centre, cos * y - sin * x + centre);
            let inside = |at: f64| at >= 0.0 && at < picture.width as f64;
            let shade = if inside(from_x) && inside(from_y) {
                picture.shades[from_y as usize * picture.width + from_x as usize]
            } else {
                140
            };
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Neither black nor white in a photograph.
            shades.push(30 + (u32::from(shade) * 3 / 4) as u8 + (noise >> 28) as u8);
        }
        Grey { width: side, height: side, shades }
    }

    fn png(picture: &Grey) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (width, height) = (picture.width as u32, picture.height as u32);
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(ColorType::Grayscale);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&picture.shades).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn jpeg(picture: &Grey, quality: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (width, height) = (picture.width as u16, picture.height as u16);
        // As cameras write it, in colour.
        let pixels: Vec<u8> = picture.shades.iter().flat_map(|shade| [*shade; 3]).collect();
        JpegEncoder::new(&mut bytes, quality)
            .encode(&pixels, width, height, JpegColor::Rgb)
            .unwrap();
        bytes
    }

    fn found(bytes: &[u8]) -> Result<Ticket, String> {
        Grey::decode(bytes).and_then(|picture| read(&picture)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_ticket_is_read_from_screenshots_and_photos() {
        let ticket = a_ticket(7);
        let text = ticket.to_string();
        for scale in [1, 2, 3, 4, 7, 12, 25] {
            assert_eq!(found(&png(&drawn(&text, scale))), Ok(ticket.clone()), "scale {scale}");
        }
        for degrees in [2.0, 7.0, 15.0, 90.0, 181.0, 275.0] {
            let photo = turned(&drawn(&text, 8), degrees);
            assert_eq!(found(&png(&photo)), Ok(ticket.clone()), "{degrees} degrees");
            for quality in [90, 60, 30] {
                let read = found(&jpeg(&photo, quality));
                assert_eq!(read, Ok(ticket.clone()), "{degrees} degrees, quality {quality}");
            }
        }
        let mut inverted = drawn(&text, 6);
        inverted.shades.iter_mut().for_each(|shade| *shade = 255 - *shade);
        assert_eq!(found(&png(&inverted)), Ok(ticket.clone()));
        assert_eq!(found(&jpeg(&inverted, 80)), Ok(ticket));
    }

    #[test]
    fn a_screenshot_of_a_terminal_is_read() {
        let ticket = a_ticket(8);
        let drawn = qr::draw(&ticket.to_string(), false).unwrap();
        let lines: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
        // Cells of usual fonts, not twice as high as wide; light on dark, and dark on light.
        for (wide, high) in [(8, 16), (9, 18), (10, 20), (7, 15), (9, 19)] {
            for (ink, ground) in [(230, 12), (20, 250)] {
                let (margin, columns) = (20, lines[0].len() + 30);
                let (width, height) =
                    (columns * wide + 2 * margin, (lines.len() + 6) * high + 2 * margin);
                let mut shades = vec![ground; width * height];
                for (row, line) in lines.iter().enumerate() {
                    for (column, cell) in line.iter().enumerate() {
                        for y in 0..high {
                            let is_upper = y < high / 2;
                            let is_inked = match cell {
                                '█' => true,
                                '▀' => is_upper,
                                '▄' => !is_upper,
                                _ => false,
                            };
                            let start = (margin + row * high + y) * width + margin + column * wide;
                            if is_inked {
                                shades[start..start + wide].fill(ink);
                            }
                        }
                    }
                }
                let picture = Grey { width, height, shades };
                let shown = format!("{wide} by {high}, {ink} on {ground}");
                assert_eq!(found(&png(&picture)), Ok(ticket.clone()), "{shown}");
            }
        }
    }

    #[test]
    fn colours_and_transparent_grounds_are_read() {
        let ticket = a_ticket(9);
        let grey = drawn(&ticket.to_string(), 5);
        // Dark blue modules on nothing at all.
        let pixels: Vec<u8> = grey
            .shades
            .iter()
            .flat_map(|shade| if *shade == 0 { [10, 20, 90, 255] } else { [0, 0, 0, 0] })
            .collect();
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, grey.width as u32, grey.height as u32);
        encoder.set_color(ColorType::Rgba);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&pixels).unwrap();
        writer.finish().unwrap();
        assert_eq!(found(&bytes), Ok(ticket));
    }

    /// Two pictures side by side.
    fn beside(left: &Grey, right: &Grey) -> Grey {
        let (width, height) = (left.width + right.width, left.height.max(right.height));
        let shade = |at: usize| {
            let (y, x) = (at / width, at % width);
            let (picture, x) = if x < left.width { (left, x) } else { (right, x - left.width) };
            if y < picture.height { picture.shades[y * picture.width + x] } else { 255 }
        };
        Grey { width, height, shades: (0..width * height).map(shade).collect() }
    }

    #[test]
    fn what_gives_no_ticket_says_why() {
        let (one, other) = (a_ticket(1).to_string(), a_ticket(2).to_string());
        let blank = Grey { width: 300, height: 200, shades: vec![200; 60_000] };
        let page = drawn("https://example.com/menu", 6);
        let cases = [
            (png(&blank), "find a QR code in the picture"),
            (png(&page), "the QR code in it is of something else"),
            (png(&beside(&drawn(&one, 5), &drawn(&other, 5))), "there are several"),
            (png(&drawn(&one.replace("WEFT1:", "WEFT2:"), 5)), "another version"),
            (b"GIF89a".to_vec(), "neither PNG nor JPEG"),
            (Vec::new(), "neither PNG nor JPEG"),
            (png(&blank)[..40].to_vec(), "read the picture: "),
            (jpeg(&blank, 80)[..200].to_vec(), "read the picture: "),
        ];
        for (bytes, expected) in cases {
            let error = found(&bytes).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
        // Of a menu and a ticket the ticket is meant; the same one twice is one.
        let (page, ours) = (drawn("https://example.com/menu", 6), drawn(&one, 6));
        assert_eq!(found(&png(&beside(&page, &ours))), Ok(a_ticket(1)));
        assert_eq!(found(&png(&beside(&ours, &ours))), Ok(a_ticket(1)));
    }

    #[test]
    fn a_picture_that_says_it_is_huge_is_not_believed() {
        let mut bytes = Vec::new();
        let encoder = png::Encoder::new(&mut bytes, 20_000, 20_000);
        let mut writer = encoder.write_header().unwrap();
        writer.write_chunk(png::chunk::IDAT, &[0; 10]).unwrap();
        // It misses its pixels.
        drop(writer);
        let error = found(&bytes).expect_err("400 million pixels");
        assert!(error.contains("more than 50 million"), "{error}");
        assert!(bounded(1, SIDE_MAX + 1).is_err());
        assert!(bounded(7_000, 7_000).is_ok());
    }

    #[test]
    fn damaged_pictures_are_survived() {
        let picture = drawn(&a_ticket(3).to_string(), 2);
        let mut noise = 7_u32;
        for mut bytes in [png(&picture), jpeg(&picture, 70)].into_iter().cycle().take(300) {
            for _ in 0..4 {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (noise >> 8) as usize % bytes.len();
                bytes[at] = noise as u8;
            }
            drop(found(&bytes));
        }
    }
}
