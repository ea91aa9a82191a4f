//! Entries of the index as they lie in memory: with 100,000 documents their size is that of the node.

use std::{borrow::Cow, num::NonZeroU8};

use weft_protocol::{
    document::{ChangeHash, Clock, DocumentKind, IndexState},
    id::DeviceId,
    signed::Signed,
    time::WallTime,
};

use super::index::Entry;

/// An entry, small where it is like nearly all others.
#[derive(Debug)]
pub(super) enum Packed {
    /// A document with one head that was never deleted.
    Common(Common),
    Other(Box<Entry>),
}

#[derive(Debug)]
pub(super) struct Common {
    head: ChangeHash,
    modified: WallTime,
    rows: u32,
    changes: u32,
    author: Number,
    kind: Number,
}

/// Where a value stands in its [`Dictionary`], counted from 1: what is never 0 leaves room for a tag.
type Number = NonZeroU8;

/// Values that many entries share, each of them once.
#[derive(Debug)]
pub(super) struct Shared {
    authors: Dictionary<DeviceId>,
    kinds: Dictionary<DocumentKind>,
}

impl Default for Shared {
    fn default() -> Self {
        // Whoever makes up kinds does not push these out.
        Self { authors: Dictionary(Vec::new()), kinds: Dictionary(DocumentKind::KNOWN.to_vec()) }
    }
}

/// Holds the first 255 values. Only fabrics whose devices took other keys hundreds of times have more authors, and
/// kinds beyond these are made up; their entries are not packed.
#[derive(Debug)]
struct Dictionary<T>(Vec<T>);

impl<T: PartialEq + Clone> Dictionary<T> {
    fn number(&mut self, value: &T) -> Option<Number> {
        let known = self.0.iter().position(|known| known == value);
        let at = known.unwrap_or(self.0.len());
        let number = Number::new(u8::try_from(at + 1).ok()?)?;
        if known.is_none() {
            self.0.push(value.clone());
        }
        Some(number)
    }

    fn get(&self, number: Number) -> &T {
        &self.0[usize::from(number.get()) - 1]
    }
}

impl Packed {
    pub(super) fn pack(mut entry: Entry, shared: &mut Shared) -> Self {
        if let Some(common) = Common::of(&entry, shared) {
            return Self::Common(common);
        }
        // A decoded list has room for four.
        entry.state.heads.shrink_to_fit();
        Self::Other(Box::new(entry))
    }

    /// The entry that was packed.
    pub(super) fn unpack(&self, shared: &Shared) -> Cow<'_, Entry> {
        match self {
            Self::Common(common) => Cow::Owned(common.unpack(shared)),
            Self::Other(entry) => Cow::Borrowed(entry),
        }
    }

    pub(super) fn kind<'a>(&'a self, shared: &'a Shared) -> &'a DocumentKind {
        match self {
            Self::Common(common) => shared.kinds.get(common.kind),
            Self::Other(entry) => &entry.kind,
        }
    }

    pub(super) fn heads(&self) -> &[ChangeHash] {
        match self {
            Self::Common(common) => std::slice::from_ref(&common.head),
            Self::Other(entry) => &entry.state.heads,
        }
    }

    pub(super) fn graves(&self) -> &[Signed] {
        match self {
            Self::Common(_) => &[],
            Self::Other(entry) => &entry.graves,
        }
    }

    pub(super) fn is_deleted(&self) -> bool {
        match self {
            Self::Common(_) => false,
            Self::Other(entry) => entry.state.is_deleted(),
        }
    }

    pub(super) fn modified(&self) -> WallTime {
        match self {
            Self::Common(common) => common.modified,
            Self::Other(entry) => entry.modified,
        }
    }
}

impl Common {
    fn of(entry: &Entry, shared: &mut Shared) -> Option<Self> {
        let Entry { kind, state, rows, changes, modified, author, graves } = entry;
        let IndexState { heads, buried } = state;
        let &[head] = &heads[..] else { return None };
        if !buried.0.is_empty() || !graves.is_empty() {
            return None;
        }
        Some(Self {
            head,
            modified: *modified,
            rows: u32::try_from(*rows).ok()?,
            changes: u32::try_from(*changes).ok()?,
            author: shared.authors.number(author.as_ref()?)?,
            kind: shared.kinds.number(kind)?,
        })
    }

    fn unpack(&self, shared: &Shared) -> Entry {
        Entry {
            kind: shared.kinds.get(self.kind).clone(),
            state: IndexState { heads: vec![self.head], buried: Clock::default() },
            rows: self.rows.into(),
            changes: self.changes.into(),
            modified: self.modified,
            author: Some(*shared.authors.get(self.author)),
            graves: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};
    use weft_protocol::id::ActorId;

    use super::*;

    fn entries() -> impl Strategy<Value = Entry> {
        let number = || prop_oneof![0..3_u64, u64::from(u32::MAX) - 1..=u64::from(u32::MAX) + 1];
        let heads = prop_oneof![3 => vec(any::<[u8; 32]>(), 1), 1 => vec(any::<[u8; 32]>(), 0..3)];
        let author = option::weighted(0.9, 0..400_u16);
        let (is_buried, has_grave) = (prop::bool::weighted(0.1), prop::bool::weighted(0.1));
        (0..400_u16, heads, (number(), number()), any::<i32>(), author, is_buried, has_grave)
            .prop_map(|(kind, heads, (rows, changes), modified, author, is_buried, has_grave)| {
                let device = |number: u16| {
                    let mut bytes = [7; 32];
                    bytes[..2].copy_from_slice(&number.to_be_bytes());
                    DeviceId::from_bytes(bytes)
                };
                let mut entry = Entry::new(format!("kind-{kind}").parse().unwrap());
                entry.state.heads = heads.into_iter().map(ChangeHash).collect();
                if is_buried {
                    entry.state.buried.0.insert(ActorId::from_bytes([3; 16]), 1);
                }
                if has_grave {
                    let author = device(kind);
                    entry.graves = vec![Signed { author, bytes: vec![1], signature: [2; 64] }];
                }
                (entry.rows, entry.changes) = (rows, changes);
                entry.modified = WallTime::from_unix_millis(modified.into());
                entry.author = author.map(device);
                entry
            })
    }

    proptest! {
        #[test]
        fn what_was_packed_is_what_comes_out(entries in vec(entries(), 0..1_000)) {
            let mut shared = Shared::default();
            let packed: Vec<_> =
                entries.iter().map(|entry| Packed::pack(entry.clone(), &mut shared)).collect();
            for (entry, packed) in entries.iter().zip(&packed) {
                prop_assert_eq!(&*packed.unpack(&shared), entry);
                prop_assert_eq!(packed.kind(&shared), &entry.kind);
                prop_assert_eq!(packed.heads(), &entry.state.heads);
                prop_assert_eq!(packed.graves(), &entry.graves);
                prop_assert_eq!(packed.is_deleted(), entry.state.is_deleted());
                prop_assert_eq!(packed.modified(), entry.modified);
            }
        }
    }

    #[test]
    fn a_document_like_most_is_small() {
        assert!(size_of::<Packed>() <= 56, "{}", size_of::<Packed>());
        assert!(matches!(Packed::pack(common(2), &mut Shared::default()), Packed::Common(_)));
    }

    #[test]
    fn authors_beyond_255_and_made_up_kinds_are_not_packed_and_not_lost() {
        let mut shared = Shared::default();
        for author in 1..=256 {
            let packed = Packed::pack(common(author), &mut shared);
            assert_eq!(matches!(packed, Packed::Common(_)), author <= 255, "{author}");
            assert_eq!(*packed.unpack(&shared), common(author));
        }
        let mut packed_kinds = 0;
        for number in 0..300 {
            let kind: DocumentKind = format!("kind-{number}").parse().unwrap();
            let entry = Entry { kind, ..common(1) };
            let packed = Packed::pack(entry.clone(), &mut shared);
            packed_kinds += usize::from(matches!(packed, Packed::Common(_)));
            assert_eq!(*packed.unpack(&shared), entry);
        }
        assert_eq!(packed_kinds, 255 - DocumentKind::KNOWN.len());
        assert!(matches!(Packed::pack(common(1), &mut shared), Packed::Common(_)), "a note");
    }

    /// A note of one device, as nearly all are.
    fn common(author: u16) -> Entry {
        let mut bytes = [2; 32];
        bytes[..2].copy_from_slice(&author.to_be_bytes());
        let mut entry = Entry::new(DocumentKind::NOTE);
        entry.state.heads = vec![ChangeHash([1; 32])];
        entry.author = Some(DeviceId::from_bytes(bytes));
        entry
    }
}
