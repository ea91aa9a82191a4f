//! What a slot takes: each kind of value, read from the words at one place.

use std::cell::OnceCell;

use jiff::civil::DateTime;
use weft_protocol::{
    graph::Argument,
    manifest::{Format, JsonType, Property},
    value::Value,
};

use crate::{
    Context, clock, duration, number,
    utterance::{self, Utterance},
};

/// What a slot takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Text,
    /// Only a word for what an earlier step gave.
    It,
    Duration,
    /// `bare_hour`: a mere `7` is a time.
    Moment {
        bare_hour: bool,
    },
    Date,
    Url,
    Path,
    Device,
    Integer,
    Number,
}

impl Kind {
    /// The kind that a slot for the argument has; none if its type cannot be said.
    pub(crate) fn of(property: &Property) -> Option<Self> {
        match (property.json_type, property.format) {
            (JsonType::String, None) => Some(Self::Text),
            (JsonType::String, Some(Format::Duration)) => Some(Self::Duration),
            (JsonType::String, Some(Format::DateTime)) => Some(Self::Moment { bare_hour: false }),
            (JsonType::String, Some(Format::Date)) => Some(Self::Date),
            (JsonType::String, Some(Format::Uri)) => Some(Self::Url),
            (JsonType::String, Some(Format::Path)) => Some(Self::Path),
            (JsonType::String, Some(Format::Device)) => Some(Self::Device),
            (JsonType::Integer, _) => Some(Self::Integer),
            (JsonType::Number, _) => Some(Self::Number),
            (JsonType::Boolean | JsonType::Array | JsonType::Object, _) => None,
        }
    }

    /// What a person might say for it, in an example.
    pub(crate) const fn example(self) -> &'static str {
        match self {
            Self::Text => "…",
            Self::It => "it",
            Self::Duration => "10 minutes",
            Self::Moment { bare_hour: false } => "tomorrow at 8",
            Self::Moment { bare_hour: true } => "7",
            Self::Date => "tomorrow",
            Self::Url => "https://example.com",
            Self::Path => "report.pdf",
            Self::Device => "my phone",
            Self::Integer | Self::Number => "5",
        }
    }
}

/// The values that begin at one word, with where they end.
type Ends<T> = Vec<(usize, T)>;

/// The typed values of one utterance, each read at most once for a place.
#[derive(Debug)]
pub(crate) struct Values<'a> {
    pub(crate) utterance: &'a Utterance<'a>,
    pub(crate) context: &'a Context,
    durations: Vec<OnceCell<Ends<i64>>>,
    /// Without and with bare hours.
    moments: [Vec<OnceCell<Ends<DateTime>>>; 2],
}

impl<'a> Values<'a> {
    pub(crate) fn new(utterance: &'a Utterance<'a>, context: &'a Context) -> Self {
        let count = utterance.words.len();
        Self {
            utterance,
            context,
            durations: vec![OnceCell::new(); count],
            moments: [vec![OnceCell::new(); count], vec![OnceCell::new(); count]],
        }
    }

    /// Every value of that kind that begins at `at` and ends by `end`, longest words first. Texts are
    /// not read here: they end where the phrase says.
    pub(crate) fn read(&self, kind: Kind, at: usize, end: usize) -> Ends<Argument> {
        let words = &self.utterance.words;
        let one =
            |value: Option<Argument>| value.map(|value| (at + 1, value)).into_iter().collect();
        let mut found: Ends<Argument> = match kind {
            Kind::Text | Kind::It => Vec::new(),
            Kind::Duration => self
                .durations_at(at)
                .iter()
                .map(|(end, seconds)| (*end, literal(duration::iso(*seconds))))
                .collect(),
            Kind::Moment { bare_hour } => self.moments[usize::from(bare_hour)][at]
                .get_or_init(|| clock::moments(words, at, self.context.now, bare_hour))
                .iter()
                .map(|(end, moment)| (*end, literal(moment.to_string())))
                .collect(),
            Kind::Date => clock::dates(words, at, self.context.now)
                .into_iter()
                .map(|(end, date)| (end, literal(date.to_string())))
                .collect(),
            Kind::Url => one(url(self.utterance.bare(at)).map(|url| literal(url.to_owned()))),
            Kind::Path => self.path(at).into_iter().collect(),
            Kind::Device => self
                .device(at)
                .into_iter()
                .map(|(end, name)| (end, literal(name.to_owned())))
                .collect(),
            Kind::Integer => number::whole(words, at)
                .map(|(end, number)| (end, Argument::Literal(Value::Int(number))))
                .into_iter()
                .collect(),
            Kind::Number => number::thousandths(words, at)
                .map(|(end, thousandths)| (end, Argument::Literal(decimal(thousandths))))
                .into_iter()
                .collect(),
        };
        found.retain(|(to, _)| *to <= end);
        found
    }

    /// Whether a length of time stands among the words.
    pub(crate) fn names_duration(&self, from: usize, to: usize) -> bool {
        (from..to).any(|at| self.durations_at(at).iter().any(|(end, _)| *end <= to))
    }

    /// Whether a path or a URL stands among the words.
    pub(crate) fn names_content(&self, from: usize, to: usize) -> bool {
        (from..to).any(|at| {
            let bare = self.utterance.bare(at);
            is_path(bare) || url(bare).is_some()
        })
    }

    fn durations_at(&self, at: usize) -> &[(usize, i64)] {
        self.durations[at].get_or_init(|| duration::durations(&self.utterance.words, at))
    }

    /// One word that looks like a path, or a quotation that does.
    fn path(&self, at: usize) -> Option<(usize, Argument)> {
        let quotes = self.utterance.words[at].quotes;
        let (end, said) = if quotes > 1 {
            (at + quotes, self.utterance.text(at, at + quotes))
        } else {
            (at + 1, self.utterance.bare(at))
        };
        is_path(said).then(|| (end, Argument::Path(said.to_owned())))
    }

    /// The device that the words at `at` name, and where they end: by its name, by its kind if only
    /// one is of that kind, or `this device`. `the`, `my` and `'s` do not count.
    pub(crate) fn device(&self, at: usize) -> Option<(usize, &'a str)> {
        let words = &self.utterance.words;
        let core = |at: usize| words.get(at).map(|word| word.core.as_str());
        if core(at) == Some("here") {
            return Some((at + 1, &self.context.here));
        }
        if core(at) == Some("this") {
            let here = self.context.devices.iter().find(|device| device.name == self.context.here);
            let kind = here.map(|device| device.kind.word());
            let this = core(at + 1).is_some_and(|word| {
                let word = word.strip_suffix("'s").unwrap_or(word);
                matches!(word, "device" | "machine" | "computer") || Some(word) == kind
            });
            return this.then_some((at + 2, self.context.here.as_str()));
        }
        let at = at + usize::from(matches!(core(at), Some("the" | "my")));
        let mut named: Vec<(usize, &str)> = Vec::new();
        for device in &self.context.devices {
            let mut end = at;
            let mut all = !device.name.trim().is_empty();
            for part in device.name.split_whitespace() {
                let part = utterance::core(part);
                let same = |word: &str| word == part || word.strip_suffix("'s") == Some(&part);
                all &= core(end).is_some_and(same);
                end += 1;
            }
            if all {
                named.push((end, &device.name));
            }
        }
        if let Some(longest) = named.iter().map(|(end, _)| *end).max() {
            let mut longest = named.into_iter().filter(|(end, _)| *end == longest);
            let first = longest.next();
            return if longest.next().is_none() { first } else { None };
        }
        let kind = core(at)?;
        let kind = kind.strip_suffix("'s").unwrap_or(kind);
        let mut of_kind = self.context.devices.iter().filter(|device| device.kind.word() == kind);
        match (of_kind.next(), of_kind.next()) {
            (Some(device), None) => Some((at + 1, &device.name)),
            (Some(_), Some(_)) | (None, _) => None,
        }
    }
}

fn literal(text: String) -> Argument {
    Argument::Literal(Value::Text(text))
}

fn decimal(thousandths: i64) -> Value {
    if thousandths % 1_000 == 0 {
        return Value::Int(thousandths / 1_000);
    }
    #[expect(clippy::cast_precision_loss, reason = "at most nine digits stand before the point")]
    let float = thousandths as f64 / 1_000.0;
    Value::Float(float)
}

/// The text, if it is an `http` or `https` URL with a host.
pub(crate) fn url(word: &str) -> Option<&str> {
    let scheme = ["https://", "http://"].into_iter().find(|scheme| {
        word.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    })?;
    word[scheme.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '[').then_some(word)
}

/// Whether the text looks like a file's path: anchored, or ending in a file's extension. What looks
/// like a host's name is none.
pub(crate) fn is_path(word: &str) -> bool {
    if word.contains("://") || word.len() > 1_024 || word.contains(char::is_control) {
        return false;
    }
    let anchored = ["/", "./", "../", "~/", ".\\", "..\\"]
        .into_iter()
        .any(|anchor| word.len() > anchor.len() && word.starts_with(anchor));
    let first = word.split(['/', '\\']).next().unwrap_or(word);
    let host = |extension: &str| {
        matches!(
            extension,
            "com" | "org" | "net" | "edu" | "gov" | "io" | "dev" | "app" | "be" | "eu" | "uk"
        )
    };
    if first.starts_with("www.") || (!anchored && extension(first).is_some_and(host)) {
        return false;
    }
    anchored || extension(word.rsplit(['/', '\\']).next().unwrap_or(word)).is_some()
}

/// What stands behind the last dot, if it could be a file's extension.
fn extension(name: &str) -> Option<&str> {
    let (stem, extension) = name.rsplit_once('.')?;
    let fits = !stem.is_empty()
        && (1..=8).contains(&extension.len())
        && extension.bytes().all(|b| b.is_ascii_alphanumeric())
        && extension.bytes().any(|b| b.is_ascii_alphabetic())
        && !(extension.len() == 1 && stem.len() == 1);
    let clock =
        matches!(extension, "m" | "am" | "pm") && stem.starts_with(|c: char| c.is_ascii_digit());
    (fits && !clock).then_some(extension)
}

#[cfg(test)]
mod tests {
    use weft_protocol::device::Kind as DeviceKind;

    use super::*;
    use crate::DeviceName;

    #[test]
    fn tells_paths_from_words() {
        for path in [
            "report.pdf",
            "notes/meeting.md",
            "./todo",
            "~/a/b",
            "/etc/hosts",
            "C:\\x\\y.txt",
            "a.tar.gz",
            ".././x",
        ] {
            assert!(is_path(path), "{path}");
        }
        for word in [
            "report",
            "and/or",
            "24/7",
            "3.5",
            "example.com",
            "www.a.pdf",
            "bob@example.com",
            "e.g",
            "/",
            "https://a.b/c.pdf",
            "10a.m",
            "...",
        ] {
            assert!(!is_path(word), "{word}");
        }
        assert_eq!(url("HTTPS://a.b"), Some("HTTPS://a.b"));
        assert_eq!(url("https://"), None);
    }

    #[test]
    fn names_devices() {
        let device = |name: &str, kind| DeviceName { name: name.into(), kind };
        let context = Context {
            now: DateTime::constant(2026, 3, 10, 9, 0, 0, 0),
            devices: vec![
                device("ada laptop", DeviceKind::Laptop),
                device("old", DeviceKind::Laptop),
                device("pixel", DeviceKind::Phone),
            ],
            here: "old".into(),
        };
        let named = |said: &str| {
            let utterance = Utterance::new(said, |_| None);
            Values::new(&utterance, &context).device(0).map(|(end, name)| (end, name.to_owned()))
        };
        assert_eq!(named("my Ada laptop"), Some((3, "ada laptop".into())));
        assert_eq!(named("the phone's clipboard"), Some((2, "pixel".into())));
        assert_eq!(named("this laptop"), Some((2, "old".into())));
        assert_eq!(named("the laptop"), None, "two are of that kind");
        assert_eq!(named("the toaster"), None);
    }
}
