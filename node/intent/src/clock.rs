//! Days and moments as people say them: `tomorrow at 8`, `on friday at 9am`, `in 20 minutes`.
//!
//! What has passed is not meant: a bare clock time moves to the next day, a date without a year to
//! the next year. What names the past outright (`today at 8`, said at 9) is no moment, and neither is
//! what two people would read as two days (`next friday`, said on a Tuesday).

use jiff::{
    SignedDuration, ToSpan as _,
    civil::{Date, DateTime, Time, Weekday},
};

use crate::{duration, number, utterance::Word};

/// The hour of a day that is named without a time.
const HOUR_OF_DAY: i8 = 9;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Day {
    Today,
    InDays(i64),
    /// The next one that is not past.
    Weekday(Weekday),
    /// The one of this week.
    ThisWeekday(Weekday),
    /// The one of next week.
    NextWeekday(Weekday),
    /// Day and month, in whichever year is next.
    Yearly(i8, i8),
    Date(Date),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Morning,
    Afternoon,
    Evening,
    Night,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Clock {
    hour: i8,
    minute: i8,
    /// Whether the words leave no doubt about the half of the day.
    exact: bool,
    /// Whether it is only a number, which is a time just where one is expected.
    bare: bool,
}

/// Every moment after `now` that begins at `at`, with where it ends; longest words first.
/// `bare_hour`: whether a mere `7` is a time here.
pub(crate) fn moments(
    words: &[Word],
    at: usize,
    now: DateTime,
    bare_hour: bool,
) -> Vec<(usize, DateTime)> {
    let mut found = Vec::new();
    for (end, moment) in after_a_while(words, at, now) {
        found.push((end, moment));
    }
    if let Some((end, moment)) = iso_moment(words, at)
        && moment > now
    {
        found.push((end, moment));
    }
    let (mut day, mut part, mut clock) = (None, None, None);
    let mut end = at;
    loop {
        if day.is_none()
            && let Some((next, said)) = day_at(words, end, now.date())
        {
            (end, day) = (next, Some(said));
        } else if part.is_none()
            && let Some((next, said, today)) = part_at(words, end, day.is_some())
        {
            if today && day.is_some() {
                break;
            }
            (end, part) = (next, Some(said));
            day = if today { Some(Day::Today) } else { day };
        } else if clock.is_none()
            && let Some((next, said)) = clock_at(words, end)
        {
            (end, clock) = (next, Some(said));
        } else {
            break;
        }
        if let Some(moment) = resolve(day, part, clock, now, bare_hour) {
            found.push((end, moment));
        }
    }
    found.sort_by_key(|(end, _)| std::cmp::Reverse(*end));
    found
}

/// Every day that begins at `at`, with where it ends; longest words first. A weekday is the next one.
pub(crate) fn dates(words: &[Word], at: usize, now: DateTime) -> Vec<(usize, Date)> {
    let today = now.date();
    if is(words, at, &["yesterday"]) {
        return today.yesterday().ok().map(|date| (at + 1, date)).into_iter().collect();
    }
    let Some((end, day)) = day_at(words, at, today) else { return Vec::new() };
    let date = match day {
        Day::Weekday(weekday) => today.nth_weekday(1, weekday).ok(),
        Day::Yearly(month, day) => yearly(month, day, today, |date| date >= today),
        Day::Today | Day::InDays(_) | Day::ThisWeekday(_) | Day::NextWeekday(_) | Day::Date(_) => {
            date_of(day, now, Time::MAX)
        }
    };
    date.map(|date| (end, date)).into_iter().collect()
}

fn is(words: &[Word], at: usize, any: &[&str]) -> bool {
    words.get(at).is_some_and(|word| any.contains(&word.core.as_str()))
}

fn skip(words: &[Word], at: usize, any: &[&str]) -> usize {
    at + usize::from(is(words, at, any))
}

/// `in 20 minutes`, `20 minutes from now`.
fn after_a_while(words: &[Word], at: usize, now: DateTime) -> Vec<(usize, DateTime)> {
    let later = |seconds| now.checked_add(SignedDuration::from_secs(seconds)).ok();
    if is(words, at, &["in"]) {
        let lengths = duration::durations(words, at + 1);
        return lengths
            .into_iter()
            .filter_map(|(end, seconds)| Some((end, later(seconds)?)))
            .collect();
    }
    let lengths = duration::durations(words, at);
    let from_now = |end| is(words, end, &["from"]) && is(words, end + 1, &["now"]);
    lengths
        .into_iter()
        .filter(|(end, _)| from_now(*end))
        .filter_map(|(end, seconds)| Some((end + 2, later(seconds)?)))
        .collect()
}

/// `2026-03-11T08:00`.
fn iso_moment(words: &[Word], at: usize) -> Option<(usize, DateTime)> {
    let at = skip(words, at, &["at", "on"]);
    let core = &words.get(at)?.core;
    let iso = core.len() >= 16 && core.as_bytes()[4] == b'-' && core.contains('t');
    iso.then(|| core.parse().ok().map(|moment| (at + 1, moment)))?
}

fn day_at(words: &[Word], at: usize, today: Date) -> Option<(usize, Day)> {
    if is(words, at, &["in"]) {
        let (end, count) =
            if is(words, at + 1, &["a"]) { (at + 2, 1) } else { number::whole(words, at + 1)? };
        let unit = match words.get(end)?.core.as_str() {
            "day" | "days" => 1,
            "week" | "weeks" => 7,
            _ => return None,
        };
        return (1..=366).contains(&count).then_some((end + 1, Day::InDays(count * unit)));
    }
    let on = skip(words, at, &["on"]);
    let core = words.get(on)?.core.as_str();
    if on == at {
        match core {
            "today" => return Some((at + 1, Day::Today)),
            "tomorrow" => return Some((at + 1, Day::InDays(1))),
            _ => {}
        }
        let day = skip(words, at, &["the"]);
        if is(words, day, &["day"])
            && is(words, day + 1, &["after"])
            && is(words, day + 2, &["tomorrow"])
        {
            return Some((day + 3, Day::InDays(2)));
        }
    }
    if let Some(weekday) = weekday(core) {
        return Some((on + 1, Day::Weekday(weekday)));
    }
    if let Some(weekday) = words.get(on + 1).and_then(|word| weekday(&word.core)) {
        match core {
            "this" => return Some((on + 2, Day::ThisWeekday(weekday))),
            "next" => return Some((on + 2, Day::NextWeekday(weekday))),
            _ => {}
        }
    }
    if core.len() == 10
        && core.as_bytes().iter().filter(|b| **b == b'-').count() == 2
        && let Ok(date) = core.parse()
    {
        return Some((on + 1, Day::Date(date)));
    }
    let (end, day, month) = if let Some(month) = month(core) {
        let day = skip(words, on + 1, &["the"]);
        (day + 1, day_of_month(words, day)?, month)
    } else {
        let first = skip(words, on, &["the"]);
        let day = day_of_month(words, first)?;
        let named = skip(words, first + 1, &["of"]);
        (named + 1, day, month(&words.get(named)?.core)?)
    };
    let year = words.get(end).and_then(|word| word.core.parse::<i16>().ok());
    match year.filter(|year| (today.year()..today.year() + 100).contains(year)) {
        Some(year) => Some((end + 1, Day::Date(Date::new(year, month, day).ok()?))),
        None => Some((end, Day::Yearly(month, day))),
    }
}

fn day_of_month(words: &[Word], at: usize) -> Option<i8> {
    let core = words.get(at)?.core.as_str();
    let digits = core.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let ordinal = matches!(&core[digits.len()..], "" | "st" | "nd" | "rd" | "th");
    let day: i8 = digits.parse().ok()?;
    (ordinal && (1..=31).contains(&day)).then_some(day)
}

/// The part of the day at `at`, and whether the words say that it is today's.
fn part_at(words: &[Word], at: usize, after_day: bool) -> Option<(usize, Part, bool)> {
    let part = |at: usize| match words.get(at)?.core.as_str() {
        "morning" => Some(Part::Morning),
        "afternoon" => Some(Part::Afternoon),
        "evening" => Some(Part::Evening),
        "night" => Some(Part::Night),
        _ => None,
    };
    match words.get(at)?.core.as_str() {
        "tonight" => Some((at + 1, Part::Night, true)),
        "this" => part(at + 1).map(|part| (at + 2, part, true)),
        "in" if is(words, at + 1, &["the"]) => part(at + 2).map(|part| (at + 3, part, false)),
        "at" if is(words, at + 1, &["night"]) => Some((at + 2, Part::Night, false)),
        _ if after_day => part(at).map(|part| (at + 1, part, false)),
        _ => None,
    }
}

fn clock_at(words: &[Word], at: usize) -> Option<(usize, Clock)> {
    let number = skip(words, at, &["at", "@"]);
    let announced = number > at;
    let core = words.get(number)?.core.as_str();
    let exact = |hour, minute| Clock { hour, minute, exact: true, bare: false };
    match core {
        "noon" | "midday" => return Some((number + 1, exact(12, 0))),
        "midnight" => return Some((number + 1, exact(0, 0))),
        "half" | "quarter" => {
            let past = is(words, number + 1, &["past"]);
            let to = core == "quarter" && is(words, number + 1, &["to"]);
            let (end, hour) = number::whole(words, number + 2)?;
            let hour = i8::try_from(hour).ok().filter(|hour| (1..=12).contains(hour))?;
            let (hour, minute) = match (past, to) {
                (true, _) => (hour, if core == "half" { 30 } else { 15 }),
                (false, true) => (if hour == 1 { 12 } else { hour - 1 }, 45),
                (false, false) => return None,
            };
            return meridiem(words, end, Clock { hour, minute, exact: false, bare: false });
        }
        _ => {}
    }
    if core.starts_with(|c: char| c.is_ascii_digit()) {
        let digits = core.find(|c: char| !c.is_ascii_digit()).unwrap_or(core.len());
        let hour: i8 = core[..digits].parse().ok().filter(|hour| (0..24).contains(hour))?;
        let rest = &core[digits..];
        let minutes = |rest: &str| {
            let minute: i8 = rest.get(..2)?.parse().ok()?;
            (rest.starts_with(|c: char| c.is_ascii_digit()) && (0..60).contains(&minute))
                .then_some(minute)
        };
        let (minute, rest, colon) = match rest.as_bytes().first() {
            Some(b':') => (minutes(&rest[1..])?, &rest[3..], true),
            Some(b'.') if announced => (minutes(&rest[1..])?, &rest[3..], true),
            Some(_) | None => (0, rest, false),
        };
        return match rest {
            "" => {
                let clock = Clock {
                    hour,
                    minute,
                    exact: hour == 0 || hour > 12 || (colon && digits == 2),
                    bare: !announced && !colon,
                };
                meridiem(words, number + 1, clock)
            }
            "am" | "a.m" | "pm" | "p.m" => {
                Some((number + 1, half(hour, minute, rest.starts_with('p'))?))
            }
            _ => None,
        };
    }
    let (end, hour) = number::whole(words, number)?;
    let hour = i8::try_from(hour).ok().filter(|hour| (0..24).contains(hour))?;
    meridiem(words, end, Clock { hour, minute: 0, exact: hour > 12, bare: !announced })
}

/// Takes `am`, `pm` or `o'clock` behind the clock time.
fn meridiem(words: &[Word], at: usize, clock: Clock) -> Option<(usize, Clock)> {
    match words.get(at).map(|word| word.core.as_str()) {
        Some("am" | "a.m") => Some((at + 1, half(clock.hour, clock.minute, false)?)),
        Some("pm" | "p.m") => Some((at + 1, half(clock.hour, clock.minute, true)?)),
        Some("o'clock" | "oclock") => Some((at + 1, Clock { bare: false, ..clock })),
        Some(_) | None => Some((at, clock)),
    }
}

fn half(hour: i8, minute: i8, afternoon: bool) -> Option<Clock> {
    let hour = (1..=12).contains(&hour).then_some(hour % 12 + if afternoon { 12 } else { 0 })?;
    Some(Clock { hour, minute, exact: true, bare: false })
}

fn resolve(
    day: Option<Day>,
    part: Option<Part>,
    clock: Option<Clock>,
    now: DateTime,
    bare_hour: bool,
) -> Option<DateTime> {
    let time = match (clock, part) {
        (Some(clock), part) => {
            let ambiguous_midnight = clock.hour == 0 && clock.exact && day.is_some();
            if (clock.bare && !bare_hour && part.is_none()) || ambiguous_midnight {
                return None;
            }
            Time::new(hour_in(clock, part)?, clock.minute, 0, 0).ok()?
        }
        (None, Some(part)) => Time::constant(default_hour(part), 0, 0, 0),
        (None, None) => {
            // A span of days without a time is a length of time, not a day.
            if matches!(day?, Day::InDays(days) if days > 2) {
                return None;
            }
            Time::constant(HOUR_OF_DAY, 0, 0, 0)
        }
    };
    let date = match day {
        Some(day) => date_of(day, now, time)?,
        None if now.date().to_datetime(time) > now => now.date(),
        None => now.date().tomorrow().ok()?,
    };
    Some(date.to_datetime(time)).filter(|moment| *moment > now)
}

/// The hour that the clock shows in that part of the day; none where they contradict each other.
fn hour_in(clock: Clock, part: Option<Part>) -> Option<i8> {
    let Some(part) = part else { return Some(clock.hour) };
    let hour = match part {
        Part::Morning => clock.hour,
        Part::Afternoon | Part::Evening | Part::Night if clock.exact || clock.hour == 12 => {
            clock.hour
        }
        Part::Afternoon | Part::Evening | Part::Night => clock.hour + 12,
    };
    let fits = match part {
        Part::Morning => hour < 12,
        Part::Afternoon => (12..19).contains(&hour),
        Part::Evening => (16..24).contains(&hour),
        Part::Night => (18..24).contains(&hour),
    };
    fits.then_some(hour)
}

const fn default_hour(part: Part) -> i8 {
    match part {
        Part::Morning => HOUR_OF_DAY,
        Part::Afternoon => 15,
        Part::Evening => 18,
        Part::Night => 20,
    }
}

fn date_of(day: Day, now: DateTime, time: Time) -> Option<Date> {
    let today = now.date();
    match day {
        Day::Today => Some(today),
        Day::InDays(days) => today.checked_add(days.days()).ok(),
        Day::Weekday(weekday) if weekday == today.weekday() && today.to_datetime(time) > now => {
            Some(today)
        }
        Day::Weekday(weekday) => today.nth_weekday(1, weekday).ok(),
        Day::ThisWeekday(weekday) => {
            let ahead = weekday.to_monday_zero_offset() - today.weekday().to_monday_zero_offset();
            (ahead >= 0).then(|| today.checked_add(ahead.days()).ok())?
        }
        Day::NextWeekday(weekday) => {
            let ahead =
                7 + weekday.to_monday_zero_offset() - today.weekday().to_monday_zero_offset();
            (ahead <= 7).then(|| today.checked_add(ahead.days()).ok())?
        }
        Day::Yearly(month, day) => yearly(month, day, today, |date| date.to_datetime(time) > now),
        Day::Date(date) => Some(date),
    }
}

fn yearly(month: i8, day: i8, today: Date, fits: impl Fn(Date) -> bool) -> Option<Date> {
    (0..2)
        .filter_map(|later| Date::new(today.year().checked_add(later)?, month, day).ok())
        .find(|date| fits(*date))
}

pub(crate) fn weekday(word: &str) -> Option<Weekday> {
    match word {
        "monday" | "mon" => Some(Weekday::Monday),
        "tuesday" | "tue" | "tues" => Some(Weekday::Tuesday),
        "wednesday" | "wed" => Some(Weekday::Wednesday),
        "thursday" | "thu" | "thurs" => Some(Weekday::Thursday),
        "friday" | "fri" => Some(Weekday::Friday),
        "saturday" | "sat" => Some(Weekday::Saturday),
        "sunday" | "sun" => Some(Weekday::Sunday),
        _ => None,
    }
}

fn month(word: &str) -> Option<i8> {
    match word {
        "january" | "jan" => Some(1),
        "february" | "feb" => Some(2),
        "march" | "mar" => Some(3),
        "april" | "apr" => Some(4),
        "may" => Some(5),
        "june" | "jun" => Some(6),
        "july" | "jul" => Some(7),
        "august" | "aug" => Some(8),
        "september" | "sep" | "sept" => Some(9),
        "october" | "oct" => Some(10),
        "november" | "nov" => Some(11),
        "december" | "dec" => Some(12),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::utterance::Utterance;

    /// A Tuesday.
    const NOW: DateTime = DateTime::constant(2026, 3, 10, 9, 0, 0, 0);

    /// The longest moment, if it takes all words.
    fn moment(said: &str, bare_hour: bool) -> Option<String> {
        let words = Utterance::new(said, |_| None).words;
        let (end, moment) = *moments(&words, 0, NOW, bare_hour).first()?;
        (end == words.len()).then(|| moment.to_string())
    }

    #[test]
    fn reads_what_people_say() {
        let cases = [
            ("tomorrow at 8", "2026-03-11T08:00:00"),
            ("at 8 tomorrow", "2026-03-11T08:00:00"),
            ("tomorrow", "2026-03-11T09:00:00"),
            ("tomorrow morning", "2026-03-11T09:00:00"),
            ("tomorrow evening at 7", "2026-03-11T19:00:00"),
            ("at 7 in the evening", "2026-03-10T19:00:00"),
            ("at 18:30", "2026-03-10T18:30:00"),
            ("18:30", "2026-03-10T18:30:00"),
            ("at 6.30 pm", "2026-03-10T18:30:00"),
            ("at 8", "2026-03-11T08:00:00"),
            ("at 9:00", "2026-03-11T09:00:00"),
            ("at half past ten", "2026-03-10T10:30:00"),
            ("at quarter to 11", "2026-03-10T10:45:00"),
            ("at noon", "2026-03-10T12:00:00"),
            ("at midnight", "2026-03-11T00:00:00"),
            ("tonight", "2026-03-10T20:00:00"),
            ("tonight at 9", "2026-03-10T21:00:00"),
            ("this evening", "2026-03-10T18:00:00"),
            ("at 5pm today", "2026-03-10T17:00:00"),
            ("on friday at 9am", "2026-03-13T09:00:00"),
            ("friday", "2026-03-13T09:00:00"),
            ("on tuesday at 8", "2026-03-17T08:00:00"),
            ("on tuesday at 10", "2026-03-10T10:00:00"),
            ("next monday at 10", "2026-03-16T10:00:00"),
            ("this thursday at noon", "2026-03-12T12:00:00"),
            ("the day after tomorrow at 8", "2026-03-12T08:00:00"),
            ("on 12 May at 14:00", "2026-05-12T14:00:00"),
            ("on May 12th at 2pm", "2026-05-12T14:00:00"),
            ("on the 1st of march at 8", "2027-03-01T08:00:00"),
            ("on 3 april 2027 at 8:15", "2027-04-03T08:15:00"),
            ("2026-03-11T08:00", "2026-03-11T08:00:00"),
            ("in 20 minutes", "2026-03-10T09:20:00"),
            ("an hour from now", "2026-03-10T10:00:00"),
            ("in 3 days at 8", "2026-03-13T08:00:00"),
            ("at 8 o'clock", "2026-03-11T08:00:00"),
            ("at eight p.m.", "2026-03-10T20:00:00"),
        ];
        for (said, expected) in cases {
            assert_eq!(moment(said, false).as_deref(), Some(expected), "{said}");
        }
        assert_eq!(moment("7", true).as_deref(), Some("2026-03-11T07:00:00"));
        assert_eq!(moment("7 tomorrow", true).as_deref(), Some("2026-03-11T07:00:00"));
    }

    #[test]
    fn reads_nothing_else() {
        for said in [
            "7",
            "yesterday",
            "today at 8",
            "next friday",
            "at 25",
            "at 8:75",
            "at 13pm",
            "at banana",
            "this monday",
            "on 31 february at 8",
            "this morning at 8",
            "tomorrow at midnight",
            "tomorrow 8",
            "in",
            "2026-03-09T08:00",
            "in the evening at 9am",
        ] {
            assert_eq!(moment(said, false), None, "{said}");
        }
    }

    #[test]
    fn reads_days() {
        let date = |said: &str| {
            let words = Utterance::new(said, |_| None).words;
            dates(&words, 0, NOW).first().map(|(_, date)| date.to_string())
        };
        assert_eq!(date("today").as_deref(), Some("2026-03-10"));
        assert_eq!(date("yesterday").as_deref(), Some("2026-03-09"));
        assert_eq!(date("on friday").as_deref(), Some("2026-03-13"));
        assert_eq!(date("10 march").as_deref(), Some("2026-03-10"));
        assert_eq!(date("2026-01-01").as_deref(), Some("2026-01-01"));
        assert_eq!(date("soon"), None);
    }
}
