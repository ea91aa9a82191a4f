//! PDF files.

use lopdf::{Document, LoadOptions};

use crate::page;

/// The most bytes that one stream of a file may unfold to, far below the agent's memory.
pub(crate) const STREAM_BYTES_MAX: usize = 16 << 20;

/// Where a PDF begins: readers look for its head in so many bytes.
const HEAD_BYTES_MAX: usize = 1024;

/// Whether a file says that it is a PDF.
pub(crate) fn is_pdf(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    head.windows(5).any(|window| window == b"%PDF-")
}

/// The text of a PDF, page after page.
///
/// # Errors
///
/// What it is instead, as the rest of a sentence that begins with its name.
pub(crate) fn text(bytes: &[u8]) -> Result<String, String> {
    if is_cut(bytes) {
        return Err("is only a part of a PDF: its end is missing".to_owned());
    }
    let options =
        LoadOptions { max_decompressed_size: Some(STREAM_BYTES_MAX), ..Default::default() };
    let document = match Document::load_mem_with_options(bytes, options) {
        Ok(document) => document,
        Err(lopdf::Error::InvalidPassword | lopdf::Error::UnsupportedSecurityHandler(_)) => {
            return Err(locked());
        }
        Err(error) => return Err(format!("is a damaged PDF: {error}")),
    };
    if document.is_encrypted() {
        return Err(locked());
    }
    let pages = document.get_pages();
    if pages.is_empty() {
        return Err("is a damaged PDF: it has no pages".to_owned());
    }
    let mut text = String::new();
    let mut damage = None;
    for (number, page) in pages {
        match page::text(&document, page) {
            Ok(of_page) => {
                text.push_str(&of_page);
                text.push('\n');
            }
            Err(error) => damage = damage.or(Some((number, error))),
        }
    }
    match damage {
        _ if !text.trim().is_empty() => Ok(text),
        Some((number, error)) => Err(format!("is a damaged PDF: page {number}: {error}")),
        None => Err("holds no text; it may be a scan".to_owned()),
    }
}

/// Whether the end of the file is missing, as after a download that broke off.
///
/// A PDF ends with the mark `%%EOF`. It may have been added to behind an earlier one, and whatever else
/// stands behind the last does no harm, so what counts is whether an object follows that no mark ends.
fn is_cut(bytes: &[u8]) -> bool {
    let last = |what: &[u8]| bytes.windows(what.len()).rposition(|window| window == what);
    match (last(b"%%EOF"), last(b" obj")) {
        (Some(end), Some(object)) => object > end,
        (None, object) => object.is_some(),
        (Some(_), None) => false,
    }
}

fn locked() -> String {
    "is locked with a password".to_owned()
}
