//! What was measured of the model, from one start to the next.

use minicbor::{Decode, Encode};
use weft_llm::Speeds;
use weft_protocol::{
    codec,
    row::{Row, Table, Write},
};
use weft_store::{ReadError, Store};

use super::core::ModelFile;

/// Speeds are kept anew when one of them moved by so much, in percent.
const MOVED_PERCENT: u64 = 20;
/// The most bytes of a row.
const ROW_BYTES_MAX: usize = 64;

/// Speeds as they are kept, in thousandths of a token a second; 0: not measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
struct Kept {
    /// The file's length: another file of that name was not measured.
    #[n(0)]
    bytes: u64,
    #[n(1)]
    prompt_milli: u64,
    #[n(2)]
    answer_milli: u64,
}

fn row(model: &ModelFile) -> Row {
    Row::named(Table::Node, b"speed", model.name.as_bytes())
}

/// What was measured of that file before this start.
///
/// # Errors
///
/// The row can't be read.
pub(super) fn read(store: &Store, model: &ModelFile) -> Result<Speeds, ReadError> {
    let kept = store.get(&row(model))?;
    // A row that a later program wrote otherwise is as good as none.
    let kept: Kept = kept.and_then(|it| codec::decode(&it, ROW_BYTES_MAX).ok()).unwrap_or_default();
    if kept.bytes == 0 || kept.bytes != bytes(model) {
        return Ok(Speeds::default());
    }
    Ok(Speeds { prompt: speed(kept.prompt_milli), answer: speed(kept.answer_milli) })
}

/// The row that keeps them, if they moved far enough from those that are kept already.
pub(super) fn write(model: &ModelFile, speeds: Speeds, kept: Speeds) -> Option<Write> {
    let moved = |now: Option<f64>, before: Option<f64>| {
        let (now, before) = (milli(now), milli(before));
        now.abs_diff(before).saturating_mul(100) > before.max(1).saturating_mul(MOVED_PERCENT)
    };
    if !moved(speeds.prompt, kept.prompt) && !moved(speeds.answer, kept.answer) {
        return None;
    }
    let kept = Kept {
        bytes: bytes(model),
        prompt_milli: milli(speeds.prompt),
        answer_milli: milli(speeds.answer),
    };
    Some(Write::Put(row(model), codec::encode(&kept)))
}

fn bytes(model: &ModelFile) -> u64 {
    std::fs::metadata(&model.path).map_or(0, |it| it.len())
}

/// Thousandths of a token a second; 0: not measured.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
pub(super) fn milli(speed: Option<f64>) -> u64 {
    // The greatest speed fits many times; a negative one does not exist.
    (speed.unwrap_or(0.0) * 1_000.0).clamp(0.0, 1e12) as u64
}

#[expect(clippy::cast_precision_loss, reason = "far below where it begins to matter")]
fn speed(milli: u64) -> Option<f64> {
    (milli > 0).then(|| milli as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use weft_store::key::StoreKey;

    use super::*;

    #[test]
    fn a_speed_is_known_after_a_start_for_the_file_that_was_measured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        std::fs::write(&path, "a model").unwrap();
        let model = ModelFile { name: "m".to_owned(), path };
        let store = Store::open(&folder.path().join("store"), &StoreKey::from([1; 32])).unwrap();
        assert_eq!(read(&store, &model).unwrap(), Speeds::default());

        let measured = Speeds { prompt: Some(210.5), answer: Some(30.25) };
        let row = write(&model, measured, Speeds::default()).expect("it was not known");
        super::super::init::write(&store, vec![row]).unwrap();
        assert_eq!(read(&store, &model).unwrap(), measured);

        let other = ModelFile { name: "n".to_owned(), ..model.clone() };
        assert_eq!(read(&store, &other).unwrap(), Speeds::default(), "another name");
        std::fs::write(&model.path, "another model").unwrap();
        assert_eq!(read(&store, &model).unwrap(), Speeds::default(), "another file");
    }

    #[test]
    fn only_what_moved_is_kept_anew() {
        let model = ModelFile { name: "m".to_owned(), path: "/none".into() };
        let of = |prompt, answer| Speeds { prompt, answer };
        let kept = of(Some(200.0), Some(30.0));
        for (now, is_kept) in [
            (kept, false),
            (of(Some(201.0), Some(35.0)), false),
            (of(Some(200.0), Some(37.0)), true),
            (of(Some(100.0), Some(30.0)), true),
            (of(None, Some(30.0)), true),
        ] {
            assert_eq!(write(&model, now, kept).is_some(), is_kept, "{now:?}");
        }
        assert_eq!(write(&model, Speeds::default(), Speeds::default()), None);
    }
}
