//! One task that looks at every connection a few times a second and ends those that overstay a deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Options;
use super::admission::{Admission, Window};
use super::pace::{Order, Pace, Stage};
use super::totals::Cut;

/// A client may close its side this long after we closed ours, so that it can read the last answer.
const CLOSING: Duration = Duration::from_secs(2);

/// A kept HTTP/1 connection that is asked for nothing for this long keeps only what it needs to notice the next request.
const REST: Duration = Duration::from_millis(500);

/// The rate below which a waiting client counts as stalled, in bytes a second.
const LEAST_RATE: u64 = 1 << 10;

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// Idle for a moment: it may put down its buffers.
    Rest,
    /// Kept open for nothing: ask it to leave.
    Finish,
    Cut(Cut),
}

/// Deadlines in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    handshake: u64,
    head: u64,
    send: u64,
    idle: u64,
}

impl Deadlines {
    fn of(options: &Options) -> Self {
        Self {
            handshake: millis(options.handshake_timeout),
            head: millis(options.head_timeout),
            send: millis(options.send_timeout),
            idle: millis(options.idle_timeout),
        }
    }

    /// Often enough that a deadline is missed by little, and rarely enough to cost nothing.
    fn tick(&self) -> Duration {
        let shortest = self.handshake.min(self.head).min(self.send).min(self.idle);
        Duration::from_millis((shortest / 8).clamp(5, 250))
    }
}

/// Runs until it is dropped.
pub(super) async fn sweep(admission: Arc<Admission>, options: Options) {
    let deadlines = Deadlines::of(&options);
    let began = Instant::now();
    let mut tick = tokio::time::interval(deadlines.tick());
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = millis(began.elapsed());
        admission.ticks.set(now);
        let mut slice = 0;
        while admission.sweep(slice, |pace, window| look(pace, window, now, &deadlines, &admission)) {
            slice += 1;
        }
    }
}

fn look(pace: &Pace, window: &mut Window, now: u64, deadlines: &Deadlines, admission: &Admission) {
    match judge(pace, window, now, deadlines) {
        Verdict::Fine => {}
        Verdict::Rest => pace.let_rest(),
        Verdict::Finish => pace.give(Order::Finish),
        Verdict::Cut(_) if pace.standing() == Order::Cut => {}
        Verdict::Cut(Cut::SlowHead) if pace.standing() == Order::Late => {}
        Verdict::Cut(Cut::SlowHead) if !pace.multiplexed() => {
            admission.totals.note_cut(Cut::SlowHead);
            pace.give(Order::Late);
        }
        Verdict::Cut(why) => {
            admission.totals.note_cut(why);
            pace.give(Order::Cut);
        }
    }
}

fn judge(pace: &Pace, window: &mut Window, now: u64, deadlines: &Deadlines) -> Verdict {
    if stalled(pace, window, now, deadlines.send) {
        return Verdict::Cut(Cut::StalledReader);
    }
    let age = now.saturating_sub(pace.since());
    match pace.stage() {
        Stage::Handshake if age > deadlines.handshake => Verdict::Cut(Cut::SlowHandshake),
        Stage::Head if age > deadlines.head => Verdict::Cut(Cut::SlowHead),
        Stage::Closing if age > millis(CLOSING) => Verdict::Cut(Cut::Lingering),
        // The last piece of an answer may still wait in h2 or in the socket's buffers: that is not idle.
        Stage::Idle if pace.blocked() || pace.any_lane(|_| true) => Verdict::Fine,
        Stage::Idle if age > deadlines.idle + millis(CLOSING) => Verdict::Cut(Cut::Lingering),
        Stage::Idle if age > deadlines.idle => Verdict::Finish,
        Stage::Idle if age > millis(REST) && !pace.multiplexed() => Verdict::Rest,
        _ => Verdict::Fine,
    }
}

/// Whether bytes wait for a client that does not take them: the socket full through a whole window with less than
/// the least rate taken, or an HTTP/2 stream whose piece does not move while others on the connection may.
fn stalled(pace: &Pace, window: &mut Window, now: u64, send: u64) -> bool {
    if pace.blocked() {
        let began = *window.began.get_or_insert_with(|| {
            window.written = pace.written();
            now
        });
        if now.saturating_sub(began) > send {
            let taken = pace.written().wrapping_sub(window.written);
            if taken < LEAST_RATE * send / 1_000 {
                return true;
            }
            *window = Window { began: Some(now), written: pace.written() };
        }
    } else {
        window.began = None;
    }
    pace.any_lane(|lane| {
        let allowed = send + lane.waiting() as u64 * 1_000 / LEAST_RATE;
        now.saturating_sub(lane.moved()) > allowed
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::lane::Chunk;
    use crate::server::pace::Ticks;

    const DEADLINES: Deadlines = Deadlines { handshake: 100, head: 100, send: 1_000, idle: 500 };

    struct Bench {
        ticks: Arc<Ticks>,
        pace: Arc<Pace>,
        window: Window,
    }

    impl Bench {
        fn new() -> Self {
            let ticks = Arc::new(Ticks::default());
            let pace = Arc::new(Pace::new(Arc::clone(&ticks)));
            Self { ticks, pace, window: Window::default() }
        }

        fn at(&mut self, now: u64) -> Verdict {
            self.ticks.set(now);
            judge(&self.pace, &mut self.window, now, &DEADLINES)
        }
    }

    #[test]
    fn a_handshake_and_a_head_have_a_deadline_each() {
        let mut bench = Bench::new();
        assert_eq!(bench.at(100), Verdict::Fine);
        assert_eq!(bench.at(101), Verdict::Cut(Cut::SlowHandshake));
        bench.pace.enter(Stage::Head);
        assert_eq!(bench.at(201), Verdict::Fine);
        assert_eq!(bench.at(202), Verdict::Cut(Cut::SlowHead));
    }

    #[test]
    fn a_busy_connection_may_wait_for_us_as_long_as_it_takes() {
        let mut bench = Bench::new();
        let (_open, number) = bench.pace.begin_request();
        assert_eq!(number, 1);
        assert_eq!(bench.at(1_000_000), Verdict::Fine);
    }

    #[test]
    fn an_idle_one_is_asked_to_leave_and_then_made_to() {
        let mut bench = Bench::new();
        drop(bench.pace.begin_request());
        assert_eq!(bench.at(500), Verdict::Fine);
        assert_eq!(bench.at(501), Verdict::Finish);
        assert_eq!(bench.at(2_501), Verdict::Cut(Cut::Lingering));
    }

    #[test]
    fn one_that_is_idle_for_a_moment_may_rest_until_its_next_request() {
        let mut bench = Bench::new();
        drop(bench.pace.begin_request());
        let patient = Deadlines { idle: 10_000, ..DEADLINES };
        bench.ticks.set(501);
        assert_eq!(judge(&bench.pace, &mut bench.window, 500, &patient), Verdict::Fine);
        assert_eq!(judge(&bench.pace, &mut bench.window, 501, &patient), Verdict::Rest);
        assert!(!bench.pace.may_rest(), "nobody has told it yet");
        bench.pace.let_rest();
        assert!(bench.pace.may_rest());
        bench.pace.note_read();
        assert!(!bench.pace.may_rest(), "the next request has begun to arrive");
        drop(bench.pace.begin_request());
        assert!(!bench.pace.may_rest(), "it has to be idle anew");
    }

    #[test]
    fn a_first_byte_between_requests_starts_the_deadline_of_a_head() {
        let mut bench = Bench::new();
        drop(bench.pace.begin_request());
        bench.at(400);
        bench.pace.note_read();
        assert_eq!(bench.at(450), Verdict::Fine);
        bench.pace.note_read();
        assert_eq!(bench.at(501), Verdict::Cut(Cut::SlowHead));
    }

    #[test]
    fn a_reader_that_takes_nothing_is_cut_and_one_that_takes_enough_is_not() {
        let mut bench = Bench::new();
        let (_open, _) = bench.pace.begin_request();
        bench.pace.note_blocked();
        assert_eq!(bench.at(10), Verdict::Fine);
        bench.pace.note_written(2_048);
        bench.pace.note_blocked();
        assert_eq!(bench.at(1_011), Verdict::Fine);
        assert_eq!(bench.at(2_011), Verdict::Fine);
        assert_eq!(bench.at(2_012), Verdict::Cut(Cut::StalledReader));
    }

    #[test]
    fn a_trickle_counts_as_a_stall() {
        let mut bench = Bench::new();
        let (_open, _) = bench.pace.begin_request();
        for now in 1..=1_001 {
            bench.pace.note_written(1);
            bench.pace.note_blocked();
            assert_eq!(bench.at(now), Verdict::Fine, "{now}");
        }
        assert_eq!(bench.at(1_002), Verdict::Cut(Cut::StalledReader));
    }

    #[test]
    fn the_wait_for_our_own_bytes_does_not_count() {
        let mut bench = Bench::new();
        let (_open, _) = bench.pace.begin_request();
        bench.pace.note_blocked();
        bench.at(900);
        bench.pace.note_written(1);
        assert_eq!(bench.at(5_000), Verdict::Fine);
        bench.pace.note_blocked();
        assert_eq!(bench.at(5_500), Verdict::Fine);
        assert_eq!(bench.at(6_400), Verdict::Fine);
    }

    #[test]
    fn a_stream_whose_last_piece_does_not_move_is_a_stall_even_after_its_body_is_gone() {
        let mut bench = Bench::new();
        bench.pace.multiplex();
        let (open, _) = bench.pace.begin_request();
        let lane = bench.pace.open_lane();
        let piece = Chunk::new(vec![0; 10_240].into(), lane.as_ref());
        drop((open, lane));
        assert_eq!(bench.at(11_000), Verdict::Fine, "a second, and ten for ten KiB");
        assert_eq!(bench.at(11_001), Verdict::Cut(Cut::StalledReader));
        drop(piece);
        assert_eq!(bench.at(11_002), Verdict::Cut(Cut::Lingering));
    }
}
