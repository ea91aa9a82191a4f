//! The commands most like what was said, for when it was not understood.

use crate::{
    catalog::Catalog,
    slot::{Kind, Values, is_path, url},
};

/// How many are shown.
const SHOWN: usize = 3;
/// The words of an utterance that are compared: the verb stands early.
const COMPARED: usize = 12;
/// A word in more than one of so many phrases tells little; a rarer one tells more.
const WEIGHT_MAX: u32 = 12;

impl Catalog {
    /// Up to three example commands, the most similar first, one for a capability. Without any
    /// likeness these are the catalog's first.
    pub(crate) fn nearest(&self, values: &Values<'_>) -> Vec<String> {
        let utterance = values.utterance;
        let mut likeness = vec![0_u32; self.phrases.len()];
        let mut heard = 0;
        for word in utterance.words.iter().take(COMPARED) {
            let (sure, alike) = match word.id {
                Some(id) => (1_000, vec![id]),
                None => self.alike(&word.core),
            };
            heard +=
                1_000 * alike.iter().map(|id| self.weight(*id)).max().unwrap_or(WEIGHT_MAX / 2);
            for id in alike {
                let weight = self.weight(id) * sure;
                for phrase in &self.words[id as usize].phrases {
                    likeness[*phrase as usize] += weight;
                }
            }
        }
        let said = Said::of(values);
        let mut shown = Shown::default();
        for (spoken, likeness) in self.phrases.iter().zip(likeness) {
            let Some(example) = &spoken.example else { continue };
            let score = if likeness == 0 {
                0
            } else {
                // What both share, twice, over what each has; and a value of the right type.
                let both = u64::from(heard + spoken.example_weight * 1_000).max(1);
                let typed = spoken.slots.iter().any(|slot| said.has(slot.kind));
                1 + u64::from(likeness) * 2_000 / both + if typed { 200 } else { 0 }
            };
            shown.offer(score, spoken.capability, example);
        }
        shown.examples()
    }

    /// Rare words weigh more.
    pub(crate) fn weight(&self, word: u32) -> u32 {
        let all = u32::try_from(self.phrases.len()).unwrap_or(u32::MAX);
        let having = u32::try_from(self.words[word as usize].phrases.len()).unwrap_or(u32::MAX);
        (1 + (all / having.max(1)).max(1).ilog2()).min(WEIGHT_MAX)
    }

    /// The vocabulary's words that a slip of the finger turns into this one, and how sure that is in
    /// thousandths.
    fn alike(&self, core: &str) -> (u32, Vec<u32>) {
        let slips = match core.len() {
            0..=3 => return (0, Vec::new()),
            4..=6 => 1,
            _ => 2,
        };
        let letters = letters(core);
        let mut found: Vec<(usize, u32)> = (0..)
            .zip(&self.words)
            .filter(|(_, vocable)| {
                vocable.word.len().abs_diff(core.len()) <= slips
                    && vocable.word.len() > 3
                    && (vocable.letters ^ letters).count_ones() as usize <= 2 * slips
            })
            .filter_map(|(id, vocable)| Some((distance(core, &vocable.word, slips)?, id)))
            .collect();
        found.sort_unstable();
        let nearest = found.first().map_or(0, |(slips, _)| *slips);
        found.retain(|(slips, _)| *slips == nearest);
        (if nearest == 1 { 800 } else { 600 }, found.into_iter().map(|(_, id)| id).collect())
    }
}

/// The best examples so far, best first, no two of one capability.
#[derive(Default)]
struct Shown<'a>(Vec<(u64, u32, &'a str)>);

impl<'a> Shown<'a> {
    fn offer(&mut self, score: u64, capability: u32, example: &'a str) {
        let shown = &mut self.0;
        if shown.len() == SHOWN && shown.last().is_some_and(|(least, ..)| *least >= score) {
            return;
        }
        if let Some(at) = shown.iter().position(|(_, other, _)| *other == capability) {
            if shown[at].0 >= score {
                return;
            }
            shown.remove(at);
        }
        let at = shown.partition_point(|(other, ..)| *other >= score);
        shown.insert(at, (score, capability, example));
        shown.truncate(SHOWN);
    }

    /// Those that are like what was said at all; if none is, the catalog's first.
    fn examples(self) -> Vec<String> {
        let any = self.0.first().is_some_and(|(score, ..)| *score > 0);
        let alike = self.0.into_iter().filter(|(score, ..)| *score > 0 || !any);
        alike.map(|(.., example)| example.to_owned()).collect()
    }
}

/// The kinds of typed value that an utterance has.
struct Said {
    path: bool,
    url: bool,
    duration: bool,
    moment: bool,
    digits: bool,
}

impl Said {
    fn of(values: &Values<'_>) -> Self {
        let count = values.utterance.words.len();
        let any = |test: &dyn Fn(usize) -> bool| (0..count.min(COMPARED)).any(test);
        let bare = |at| values.utterance.bare(at);
        Self {
            path: any(&|at| is_path(bare(at))),
            url: any(&|at| url(bare(at)).is_some()),
            duration: values.names_duration(0, count),
            moment: any(&|at| {
                !values.read(Kind::Moment { bare_hour: false }, at, count).is_empty()
            }),
            digits: any(&|at| bare(at).starts_with(|c: char| c.is_ascii_digit())),
        }
    }

    const fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Path => self.path,
            Kind::Url => self.url,
            Kind::Duration => self.duration,
            Kind::Moment { .. } => self.moment,
            Kind::Integer | Kind::Number => self.digits,
            Kind::Text | Kind::It | Kind::Date | Kind::Device => false,
        }
    }
}

/// A bit for each Latin letter in the word, and one for all else.
pub(crate) fn letters(word: &str) -> u32 {
    word.bytes().fold(0, |bits, b| bits | 1 << if b.is_ascii_lowercase() { b - b'a' } else { 26 })
}

/// How many letters must be added, dropped, changed or swapped with their neighbour to turn one word
/// into the other, in bytes; none if more than `most`.
fn distance(a: &str, b: &str, most: usize) -> Option<usize> {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() > 48 || b.len() > 48 {
        return None;
    }
    let mut rows = [[0_usize; 49]; 3];
    for (column, cell) in rows[0].iter_mut().enumerate() {
        *cell = column;
    }
    for i in 1..=a.len() {
        let (now, one, two) = (i % 3, (i + 2) % 3, (i + 1) % 3);
        rows[now][0] = i;
        let mut least = i;
        for j in 1..=b.len() {
            let change = rows[one][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut cell = change.min(rows[one][j] + 1).min(rows[now][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cell = cell.min(rows[two][j - 2] + 1);
            }
            rows[now][j] = cell;
            least = least.min(cell);
        }
        if least > most {
            return None;
        }
    }
    Some(rows[a.len() % 3][b.len()]).filter(|slips| *slips <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_slips() {
        assert_eq!(distance("sumarize", "summarize", 2), Some(1));
        assert_eq!(distance("tiemr", "timer", 1), Some(1));
        assert_eq!(distance("note", "timer", 1), None);
        assert_eq!(distance("same", "same", 1), Some(0));
    }
}
