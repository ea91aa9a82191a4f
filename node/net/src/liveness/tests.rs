//! Cases and properties of signs of life.

use proptest::prelude::*;

use super::*;

const DEVICE: DeviceId = DeviceId::from_bytes([1; 32]);
const OTHER: DeviceId = DeviceId::from_bytes([2; 32]);
const PATIENCE: Duration = Duration::from_millis(1_200);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn connection(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

fn opened(number: usize, device: DeviceId, tells_silence: bool) -> Input {
    Input::Opened { connection: connection(number), device, tells_silence }
}

fn watched(is_watched: bool) -> Input {
    Input::Watched { device: DEVICE, is_watched }
}

/// A machine whose time passes.
struct Sitting {
    liveness: Liveness,
    now: u64,
    done: Vec<(u64, Output)>,
}

impl Sitting {
    /// One connection, up since the beginning.
    fn with(tells_silence: bool) -> Self {
        let mut sitting = Self { liveness: Liveness::default(), now: 0, done: Vec::new() };
        sitting.take(opened(1, DEVICE, tells_silence));
        sitting
    }

    fn take(&mut self, input: Input) {
        self.liveness.handle_input(input, at(self.now));
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(output) = self.liveness.poll_output() {
            self.done.push((self.now, output));
            if let Output::GiveUp(connection, _) = output {
                self.liveness.handle_input(Input::Closed(connection), at(self.now));
            }
        }
    }

    /// Lets time pass up to `until`, called when something is due.
    fn pass(&mut self, until: u64) {
        while let Some(due) = self.liveness.poll_timeout()
            && due <= at(until)
        {
            self.now = self.now.max(due.as_micros() / 1_000);
            self.liveness.handle_timeout(at(self.now));
            self.collect();
        }
        self.now = until;
    }

    fn asked(&self) -> Vec<u64> {
        let is_ask = |(at, output): &(u64, Output)| matches!(output, Output::Ask(_)).then_some(*at);
        self.done.iter().filter_map(is_ask).collect()
    }

    fn given_up(&self) -> Option<(u64, Silence)> {
        self.done.iter().find_map(|(at, output)| match output {
            Output::GiveUp(_, silence) => Some((*at, *silence)),
            Output::Ask(_) => None,
        })
    }
}

#[test]
fn a_watched_device_that_says_nothing_is_asked_and_given_up_within_three_seconds() {
    for tells_silence in [false, true] {
        let mut sitting = Sitting::with(tells_silence);
        sitting.pass(10_000);
        sitting.take(watched(true));
        sitting.pass(20_000);
        let asked: Vec<u64> = (0..12).map(|time| 11_250 + 150 * time).collect();
        assert_eq!(sitting.asked(), asked);
        assert_eq!(sitting.given_up(), Some((13_000, Silence::Watched)));
    }
}

#[test]
fn a_call_that_is_over_before_anybody_need_be_asked_asks_nobody() {
    let mut sitting = Sitting::with(true);
    for call in 0..20 {
        sitting.pass(call * 2_000);
        sitting.take(watched(true));
        sitting.pass(call * 2_000 + 900);
        sitting.take(watched(false));
    }
    sitting.pass(3_600_000);
    assert_eq!(sitting.done, []);
}

#[test]
fn whoever_talks_is_not_asked() {
    let mut sitting = Sitting::with(false);
    sitting.take(watched(true));
    for beat in 1..60 {
        sitting.pass(beat * 1_000);
        sitting.take(Input::Heard(connection(1)));
    }
    assert_eq!(sitting.done, []);
}

#[test]
fn an_idle_connection_is_left_to_a_transport_that_tells_silence() {
    let mut sitting = Sitting::with(true);
    sitting.pass(3_600_000);
    assert_eq!((sitting.liveness.poll_timeout(), sitting.done), (None, vec![]));
}

#[test]
fn an_idle_connection_whose_transport_answers_for_a_program_that_hangs_is_asked_seldom() {
    let mut sitting = Sitting::with(false);
    sitting.pass(60_000);
    assert_eq!(sitting.asked(), [14_000, 19_000, 24_000]);
    assert_eq!(sitting.given_up(), Some((28_000, Silence::Idle)));
}

#[test]
fn whoever_does_not_answer_what_was_sent_is_asked_and_given_up_soon() {
    for tells_silence in [false, true] {
        let mut sitting = Sitting::with(tells_silence);
        sitting.pass(10_000);
        sitting.take(Input::Sent(connection(1)));
        // More that is sent gives it no longer.
        sitting.pass(11_000);
        sitting.take(Input::Sent(connection(1)));
        sitting.pass(40_000);
        let asked: Vec<u64> = (0..11).map(|time| 11_250 + 250 * time).collect();
        assert_eq!(sitting.asked(), asked);
        assert_eq!(sitting.given_up(), Some((14_000, Silence::Owed)));
    }
}

#[test]
fn whoever_answers_what_was_sent_is_left_in_peace() {
    let mut sitting = Sitting::with(true);
    for time in 0..20 {
        sitting.take(Input::Sent(connection(1)));
        sitting.pass(time * 1_000 + 900);
        sitting.take(Input::Heard(connection(1)));
    }
    assert_eq!((sitting.liveness.poll_timeout(), sitting.done), (None, vec![]));
}

#[test]
fn what_was_sent_gives_nobody_longer_than_silence_may_last() {
    let mut sitting = Sitting::with(false);
    sitting.pass(27_500);
    sitting.take(Input::Sent(connection(1)));
    sitting.pass(60_000);
    assert_eq!(sitting.given_up(), Some((28_000, Silence::Idle)));
}

#[test]
fn when_the_network_is_back_whoever_is_silent_is_given_up_soon() {
    let mut sitting = Sitting::with(true);
    sitting.take(opened(2, OTHER, true));
    sitting.pass(500);
    for number in [1, 2] {
        sitting.take(Input::Moved { connection: connection(number), patience: PATIENCE });
        // That it moves on gives nobody longer.
        sitting.take(Input::Moved { connection: connection(number), patience: PATIENCE });
    }
    assert_eq!(sitting.asked(), [500, 500]);
    sitting.pass(900);
    sitting.take(Input::Heard(connection(2)));
    sitting.pass(60_000);
    assert_eq!(sitting.given_up(), Some((1_700, Silence::Moved)));
    assert_eq!(sitting.done.len(), 3, "whoever answered is left in peace: {:?}", sitting.done);
}

#[test]
fn a_node_that_stood_still_asks_before_it_gives_anybody_up() {
    for (tells_silence, is_watched, silence, after) in
        [(true, true, Silence::Watched, 1_750), (false, false, Silence::Idle, 14_000)]
    {
        let mut sitting = Sitting::with(tells_silence);
        sitting.take(watched(is_watched));
        sitting.now = 300_000;
        sitting.liveness.handle_timeout(at(300_000));
        sitting.collect();
        assert_eq!(sitting.done, [(300_000, Output::Ask(connection(1)))]);
        sitting.pass(600_000);
        assert_eq!(sitting.given_up(), Some((300_000 + after, silence)));
    }
    let mut sitting = Sitting::with(true);
    sitting.take(Input::Moved { connection: connection(1), patience: PATIENCE });
    sitting.now = 300_000;
    sitting.liveness.handle_timeout(at(300_000));
    sitting.collect();
    assert_eq!(sitting.given_up(), None);
    sitting.pass(600_000);
    assert_eq!(sitting.given_up(), Some((301_200, Silence::Moved)));
}

#[test]
fn a_connection_that_is_gone_is_neither_asked_nor_given_up() {
    let mut sitting = Sitting::with(true);
    sitting.take(watched(true));
    sitting.liveness.handle_timeout(at(1_250));
    sitting.take(Input::Closed(connection(1)));
    sitting.pass(60_000);
    assert_eq!(sitting.done, []);
    // The next one of the same device is watched from its beginning.
    sitting.take(opened(2, DEVICE, true));
    sitting.pass(90_000);
    assert_eq!(sitting.given_up(), Some((63_000, Silence::Watched)));
}

/// A peer as the property has it: whether and when it answers.
#[derive(Clone, Copy, Debug)]
enum Peer {
    /// Answers each question after so many milliseconds.
    Answers(u64),
    Silent,
}

/// What happens beside the questions and answers.
#[derive(Clone, Copy, Debug)]
enum Step {
    Watch(bool),
    Moved,
    Frame,
    Sent,
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let what = prop_oneof![
        any::<bool>().prop_map(Step::Watch),
        Just(Step::Moved),
        Just(Step::Frame),
        Just(Step::Sent),
    ];
    (0_u64..20_000, what)
}

proptest! {
    /// Whatever happens: whoever answers is never given up; whoever is silent is, in time for each of
    /// the three reasons; and nobody is asked more often than the terms say.
    #[test]
    fn whoever_answers_stays_and_whoever_does_not_goes(
        tells_silence: bool,
        answers in prop::option::of(0_u64..400),
        steps in prop::collection::vec(step(), 0..30),
    ) {
        let peer = answers.map_or(Peer::Silent, Peer::Answers);
        let mut sitting = Sitting::with(tells_silence);
        let (mut is_watched, mut quiet_since, mut pending) = (false, 0_u64, Vec::<u64>::new());
        let (mut moves, mut owed) = (Vec::new(), None::<u64>);
        let mut steps = steps.into_iter();
        let mut next = steps.next();
        let mut seen = 0;
        loop {
            let due = sitting.liveness.poll_timeout().map(|it| it.as_micros() / 1_000);
            let answer = pending.first().copied();
            let Some(now) = [due, answer, next.map(|(at, _)| at)].into_iter().flatten().min() else {
                break;
            };
            if now > 900_000 {
                break;
            }
            sitting.now = now;
            if answer == Some(now) {
                pending.remove(0);
                sitting.take(Input::Heard(connection(1)));
                (quiet_since, owed) = (now, None);
            } else if let Some((at, what)) = next && at == now {
                next = steps.next().map(|(wait, step)| (now + wait, step));
                match what {
                    Step::Watch(is) => {
                        if is != is_watched {
                            quiet_since = now;
                            owed = owed.map(|_| now);
                        }
                        is_watched = is;
                        sitting.take(watched(is));
                    }
                    Step::Moved => {
                        moves.push(now);
                        let patience = PATIENCE;
                        sitting.take(Input::Moved { connection: connection(1), patience });
                    }
                    Step::Frame => {
                        sitting.take(Input::Heard(connection(1)));
                        (quiet_since, owed) = (now, None);
                    }
                    Step::Sent => {
                        owed.get_or_insert(now);
                        sitting.take(Input::Sent(connection(1)));
                    }
                }
            } else {
                sitting.liveness.handle_timeout(at(now));
                sitting.collect();
            }
            for (when, output) in &sitting.done[seen..] {
                match (output, peer) {
                    (Output::Ask(_), Peer::Answers(after)) => pending.push(when + after),
                    (Output::Ask(_), Peer::Silent) => {}
                    (Output::GiveUp(_, silence), Peer::Silent) => {
                        let patience = match silence {
                            Silence::Watched => SILENCE_WATCHED,
                            Silence::Owed => SILENCE_OWED,
                            Silence::Idle => SILENCE_IDLE,
                            Silence::Moved => PATIENCE,
                        };
                        let since = if *silence == Silence::Owed { owed } else { Some(quiet_since) };
                        let silent = Duration::from_millis(when - since.unwrap_or(*when));
                        prop_assert!(*silence == Silence::Moved || silent == patience, "{silent:?}");
                    }
                    (Output::GiveUp(..), Peer::Answers(_)) => {
                        prop_assert!(false, "given up though it answers: {:?}", sitting.done);
                    }
                }
            }
            seen = sitting.done.len();
            if sitting.given_up().is_some() {
                break;
            }
        }
        let by_time: Vec<u64> =
            sitting.asked().into_iter().filter(|at| !moves.contains(at)).collect();
        for pair in by_time.windows(2) {
            prop_assert!(pair[1] - pair[0] >= 150, "{by_time:?}");
        }
        if matches!(peer, Peer::Silent) && (is_watched || owed.is_some() || !tells_silence) {
            prop_assert!(sitting.given_up().is_some(), "{:?}", sitting.done);
        }
    }
}
