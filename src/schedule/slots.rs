//! The slots of a schedule: which are due, and what becomes of each.

use std::time::Duration;

use super::{Misplaced, Turn};
use crate::journal::event::{Event, Principal};
use crate::journal::occasion::SlotFate;
use crate::journal::store::Entry;
use crate::kernel::{Digest, RunId, Timestamp};
use crate::workflow::cron::CronSchedule;
use crate::workflow::elements::{CatchUp, Overlap, ScheduleSpec};

/// A slot that is looked at later than this is late, although a server lived when it was due: the
/// machine slept, or the journal could not be written.
const GRACE: Duration = Duration::from_mins(1);

/// At most so many runs are started at one look; the rest follows at the next.
const MOST_STARTS: usize = 100;

/// What the journal says of a schedule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The sequence number of the newest entry.
    pub last_seq: u64,
    /// Its cron text and zone when it was last seen.
    pub seen: Option<(String, String)>,
    /// Slots up to this one are decided.
    pub watermark: Option<Timestamp>,
    /// Who paused it, and why.
    pub paused: Option<(Principal, String)>,
    /// The newest row about slots, as far as it is known.
    pub last: Option<(Timestamp, SlotFate)>,
    /// How many entries it follows from.
    pub entries: u32,
}

impl Standing {
    /// The standing that follows from the entries of the schedule's stream, from its newest
    /// `schedule_seen` on.
    pub fn replay(entries: &[Entry]) -> Result<Self, Misplaced> {
        let mut standing = Self::default();
        entries.iter().try_for_each(|entry| standing.apply(entry))?;
        Ok(standing)
    }

    /// Takes an entry in.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Misplaced> {
        let misplaced = |what: String| Misplaced { position: entry.position, what };
        match &entry.event {
            Event::ScheduleSeen { cron, time_zone, watermark, paused, .. } => {
                if self.watermark.is_some_and(|known| *watermark < known) {
                    return Err(misplaced("the watermark moves back".to_owned()));
                }
                self.seen = Some((cron.clone(), time_zone.clone()));
                self.watermark = Some(*watermark);
                self.paused.clone_from(paused);
                self.entries = 0;
            }
            Event::SlotsDecided { first, last, fate, .. } => {
                if last < first || self.watermark.is_none_or(|known| *first <= known) {
                    return Err(misplaced(format!("slot {first} was decided before")));
                }
                self.watermark = Some(*last);
                self.last = Some((*last, *fate));
            }
            Event::SchedulePaused { by, reason, .. } => {
                self.paused = Some((by.clone(), reason.clone()));
            }
            Event::ScheduleResumed { .. } => self.paused = None,
            other => return Err(misplaced(format!("`{}` is not about slots", other.kind()))),
        }
        self.last_seq = entry.seq;
        self.entries += 1;
        Ok(())
    }

    /// What is recorded before anything is decided: a schedule that is new begins now; one whose times
    /// were changed begins again, and the slots that it had until now are missed; one with many entries
    /// is summed up.
    pub fn introduce(&self, workflow: &str, spec: &ScheduleSpec, now: Timestamp) -> Vec<Event> {
        let known = (spec.cron.clone(), spec.time_zone.clone());
        let is_known = self.seen.as_ref() == Some(&known);
        if is_known && self.entries < super::SUMMED_UP_AFTER {
            return Vec::new();
        }
        let other = self.seen.as_ref().filter(|_| !is_known);
        let before = other.zip(self.watermark).and_then(|((cron, zone), from)| {
            let cron = CronSchedule::parse(cron, zone).ok()?;
            let mut slots = due_after(&cron, from, now);
            let first = slots.next()?;
            let (last, count) = slots.fold((first, 1), |(_, count), slot| (slot, count + 1));
            let why = Some("the schedule was changed before a server saw it".to_owned());
            let (schedule, fate) = (spec.id.clone(), SlotFate::Missed);
            Some(Event::SlotsDecided { schedule, first, last, count, fate, run: None, why })
        });
        let seen = Event::ScheduleSeen {
            schedule: spec.id.clone(),
            workflow: workflow.to_owned(),
            cron: known.0,
            time_zone: known.1,
            tzdb: chrono_tz::IANA_TZDB_VERSION.to_owned(),
            watermark: match self.watermark {
                Some(known) if is_known => known,
                Some(known) => known.max(now),
                None => now,
            },
            paused: self.paused.clone(),
        };
        before.into_iter().chain([seen]).collect()
    }
}

/// What a decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The schedule.
    pub spec: &'a ScheduleSpec,
    /// Its times.
    pub cron: &'a CronSchedule,
    /// What the journal says of it.
    pub standing: &'a Standing,
    /// The present instant.
    pub now: Timestamp,
    /// Since when a server lives without a break.
    pub alive_since: Timestamp,
    /// How many of its runs are not over.
    pub unfinished: usize,
}

/// What becomes of a slot, or of several that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The first slot.
    pub first: Timestamp,
    /// The last one.
    pub last: Timestamp,
    /// How many.
    pub count: u64,
    /// What becomes of them.
    pub fate: SlotFate,
}

impl Row {
    const fn one(slot: Timestamp, fate: SlotFate) -> Self {
        Self { first: slot, last: slot, count: 1, fate }
    }

    /// Whether a run is to be started.
    pub const fn starts(&self) -> bool {
        matches!(self.fate, SlotFate::Fired | SlotFate::CaughtUp)
    }

    /// The event that records it.
    pub fn event(&self, schedule: &str, run: Option<RunId>, why: Option<String>) -> Event {
        let Self { first, last, count, fate } = *self;
        Event::SlotsDecided { schedule: schedule.to_owned(), first, last, count, fate, run, why }
    }
}

/// What is to be done for a schedule now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of the slots that are due, in their order.
    pub rows: Vec<Row>,
    /// When there is more to decide; `None`: when a run ends, or never.
    pub next: Option<Timestamp>,
}

/// Decides on every slot that is due.
///
/// A slot is late when no server lived when it was due, or when it is looked at more than a minute after
/// that. Late slots are caught up as `catch_up` says; all others follow `overlap`. Where all late slots
/// are caught up and runs may not overlap, they run one after the other, and what comes due meanwhile
/// waits behind them; what comes due while the last of them works follows `overlap`.
pub fn decide(look: &Look<'_>) -> Decision {
    let mut decision = Decision::default();
    let Some(mut at) = look.standing.watermark else { return decision };
    let mut unfinished = look.unfinished;
    let mut starts = 0;
    // With `catch_up: latest`: the newest late slot so far. It is only known when the next is not late.
    let mut latest: Option<Timestamp> = None;
    loop {
        let slot = look.cron.next_after(at);
        // Slots are decided in their order: one waits for the delay of the one before it.
        let own = |slot: Timestamp| slot.plus(jitter(look.spec, slot));
        let due = slot.map(|slot| (slot, own(slot).max(own(at))));
        let Some((slot, due)) = due.filter(|(_, due)| *due <= look.now) else {
            decision.next = due.map(|(_, due)| due);
            break;
        };
        let is_late = due <= look.alive_since || look.now.since(due) > GRACE;
        let is_caught_up = look.now.since(slot) <= look.spec.catch_up_window.0;
        if starts == MOST_STARTS {
            decision.next = Some(look.now);
            break;
        }
        let fate = match look.spec.catch_up {
            _ if look.standing.paused.is_some() => SlotFate::Suppressed,
            CatchUp::Latest if is_late && is_caught_up => {
                if let Some(before) = latest.replace(slot) {
                    push(&mut decision.rows, Row::one(before, SlotFate::Missed));
                }
                at = slot;
                continue;
            }
            CatchUp::All if is_late && is_caught_up => {
                if look.spec.overlap != Overlap::Allow && unfinished > 0 {
                    break;
                }
                SlotFate::CaughtUp
            }
            _ if is_late => SlotFate::Missed,
            _ => {
                settle_latest(look, &mut latest, (&mut decision, &mut unfinished));
                in_turn(look, unfinished, SlotFate::Fired)
            }
        };
        let row = Row::one(slot, fate);
        if row.starts() {
            starts += 1;
            unfinished += 1;
        }
        push(&mut decision.rows, row);
        at = slot;
        if fate == SlotFate::CaughtUp && look.spec.overlap != Overlap::Allow {
            // What follows waits until this run is over.
            break;
        }
    }
    settle_latest(look, &mut latest, (&mut decision, &mut unfinished));
    decision
}

fn settle_latest(
    look: &Look<'_>,
    latest: &mut Option<Timestamp>,
    (decision, unfinished): (&mut Decision, &mut usize),
) {
    if let Some(slot) = latest.take() {
        let row = Row::one(slot, in_turn(look, *unfinished, SlotFate::CaughtUp));
        *unfinished += usize::from(row.starts());
        push(&mut decision.rows, row);
    }
}

const fn in_turn(look: &Look<'_>, unfinished: usize, fate: SlotFate) -> SlotFate {
    match Turn::of(look.spec.overlap, unfinished) {
        Turn::Start | Turn::Queue => fate,
        Turn::Skip => SlotFate::Skipped,
    }
}

/// Slots that follow one another and have the same fate share a row, unless each has a run.
fn push(rows: &mut Vec<Row>, row: Row) {
    match rows.last_mut() {
        Some(last) if last.fate == row.fate && !row.starts() => {
            last.last = row.last;
            last.count += row.count;
        }
        _ => rows.push(row),
    }
}

fn due_after(
    cron: &CronSchedule,
    from: Timestamp,
    until: Timestamp,
) -> impl Iterator<Item = Timestamp> + '_ {
    std::iter::successors(cron.next_after(from), |at| cron.next_after(*at))
        .take_while(move |at| *at <= until)
}

/// By how much a slot is delayed: the same whenever it is asked for, and different from slot to slot and
/// from schedule to schedule.
pub fn jitter(spec: &ScheduleSpec, slot: Timestamp) -> Duration {
    let most = u64::try_from(spec.jitter.0.as_millis()).unwrap_or(u64::MAX);
    if most == 0 {
        return Duration::ZERO;
    }
    let digest = Digest::of_bytes(format!("{} {slot}", spec.id).as_bytes());
    let draw = digest.as_str().get(..15).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    Duration::from_millis(draw.unwrap_or_default() % most.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::Span;

    const START: Timestamp = Timestamp::from_millis(1_795_000_000_000);

    fn spec(cron: &str, zone: &str, overlap: Overlap, catch_up: CatchUp) -> ScheduleSpec {
        ScheduleSpec {
            id: "s".to_owned(),
            cron: cron.to_owned(),
            time_zone: zone.to_owned(),
            overlap,
            catch_up,
            catch_up_window: Span::from_secs(3600),
            jitter: Span::default(),
        }
    }

    /// A server, its journal and its runs, under a clock that the test turns.
    struct World {
        spec: ScheduleSpec,
        cron: CronSchedule,
        entries: Vec<Entry>,
        now: Timestamp,
        alive_since: Timestamp,
        run_length: Duration,
        runs: Vec<Timestamp>,
        most_at_once: usize,
    }

    impl World {
        fn new(spec: ScheduleSpec, run_length: Duration) -> Self {
            let cron = CronSchedule::parse(&spec.cron, &spec.time_zone).unwrap();
            let mut world = Self {
                spec,
                cron,
                entries: Vec::new(),
                now: START,
                alive_since: START,
                run_length,
                runs: Vec::new(),
                most_at_once: 0,
            };
            world.introduce();
            world
        }

        fn standing(&self) -> Standing {
            Standing::replay(&self.entries).unwrap()
        }

        fn append(&mut self, event: Event) {
            let seq = u64::try_from(self.entries.len()).unwrap() + 1;
            let stream = "schedule/s".to_owned();
            self.entries.push(Entry { position: seq, stream, seq, at: self.now, event });
        }

        fn introduce(&mut self) {
            for event in self.standing().introduce("w", &self.spec, self.now) {
                self.append(event);
            }
        }

        fn unfinished(&self) -> usize {
            self.runs.iter().filter(|begun| self.now.since(**begun) < self.run_length).count()
        }

        /// Looks and records until nothing is due. `lost`: the process dies before it could record.
        fn tick(&mut self, lost: bool) -> Option<Timestamp> {
            loop {
                let standing = self.standing();
                let decision = decide(&Look {
                    spec: &self.spec,
                    cron: &self.cron,
                    standing: &standing,
                    now: self.now,
                    alive_since: self.alive_since,
                    unfinished: self.unfinished(),
                });
                if lost {
                    return None;
                }
                for row in &decision.rows {
                    if row.starts() {
                        self.runs.push(self.now);
                    }
                    self.append(row.event("s", None, None));
                }
                self.most_at_once = self.most_at_once.max(self.unfinished());
                if decision.next.is_none_or(|next| next > self.now) {
                    return decision.next;
                }
            }
        }

        /// A server lives for so long, looking every ten seconds and whenever something is due.
        fn up(&mut self, length: Duration, dies_while_deciding: bool) {
            self.alive_since = self.now;
            self.introduce();
            let end = self.now.plus(length);
            while self.now < end {
                let next = self.tick(false);
                let soon = self.now.plus(Duration::from_secs(10));
                self.now = next.map_or(soon, |next| next.min(soon)).min(end);
            }
            self.tick(dies_while_deciding);
        }

        /// The same, looking only when something is due.
        fn leap(&mut self, length: Duration) {
            self.alive_since = self.now;
            self.introduce();
            let end = self.now.plus(length);
            while self.now < end {
                self.now = self.tick(false).map_or(end, |next| next.min(end));
            }
            self.tick(false);
        }

        fn down(&mut self, length: Duration) {
            self.now = self.now.plus(length);
        }

        /// Every slot with its fate, of all rows; fails when one has two.
        fn fates(&self) -> Vec<(Timestamp, SlotFate)> {
            let mut found = Vec::new();
            for entry in &self.entries {
                let Event::SlotsDecided { first, last, count, fate, .. } = &entry.event else {
                    continue;
                };
                let before = Timestamp::from_millis(first.as_millis() - 1);
                let slots: Vec<_> = due_after(&self.cron, before, *last).collect();
                assert_eq!(u64::try_from(slots.len()).unwrap(), *count);
                found.extend(slots.into_iter().map(|slot| (slot, *fate)));
            }
            assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "a slot has two fates");
            found
        }

        fn count(&self, fate: SlotFate) -> usize {
            self.fates().iter().filter(|(_, found)| *found == fate).count()
        }
    }

    const MINUTE: Duration = Duration::from_mins(1);
    const HOUR: Duration = Duration::from_hours(1);
    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn a_server_that_was_down_catches_up_as_the_policy_says() {
        // How long nobody serves, how many slots that has, how many of them are less than an hour old, and
        // how many others there are in the hours before and after.
        let cases = [
            ("*/5 * * * *", 5 * MINUTE, 1, 1, 24),
            ("*/5 * * * *", DAY, 288, 12, 24),
            ("0 */6 * * *", 365 * DAY, 1_460, 1, 1),
        ];
        for (cron, down, slots, young, others) in cases {
            for overlap in [Overlap::Skip, Overlap::QueueOne, Overlap::Allow] {
                for catch_up in [CatchUp::None, CatchUp::Latest, CatchUp::All] {
                    let spec = spec(cron, "UTC", overlap, catch_up);
                    let mut world = World::new(spec, Duration::from_secs(20));
                    world.up(HOUR, false);
                    world.down(down);
                    world.up(HOUR, false);
                    let caught = match catch_up {
                        CatchUp::None => 0,
                        CatchUp::Latest => 1,
                        CatchUp::All => young,
                    };
                    let fates = world.fates();
                    let count = |fate| fates.iter().filter(|(_, found)| *found == fate).count();
                    let found = [SlotFate::CaughtUp, SlotFate::Missed, SlotFate::Fired].map(count);
                    let what = format!("{cron} {down:?} {overlap:?} {catch_up:?}");
                    // Twelve runs of twenty seconds: one slot comes due while the last of them works.
                    let is_busy = (overlap, catch_up, young) == (Overlap::Skip, CatchUp::All, 12);
                    let others = others - usize::from(is_busy);
                    assert_eq!(found, [caught, slots - caught, others], "{what}");
                    let most = if overlap == Overlap::Allow { 12 } else { 2 };
                    assert!(world.most_at_once <= most, "{what}");
                }
            }
        }
    }

    #[test]
    fn overlap_skips_queues_or_allows() {
        for (overlap, fired, most) in
            [(Overlap::Skip, 3, 1), (Overlap::QueueOne, 6, 2), (Overlap::Allow, 9, 3)]
        {
            let spec = spec("* * * * *", "UTC", overlap, CatchUp::None);
            let mut world = World::new(spec, Duration::from_secs(150));
            world.up(9 * MINUTE, false);
            let all = world.count(SlotFate::Fired) + world.count(SlotFate::Skipped);
            assert_eq!((world.count(SlotFate::Fired), all), (fired, 9), "{overlap:?}");
            assert_eq!(world.most_at_once, most, "{overlap:?}");
        }
    }

    #[test]
    fn a_paused_schedule_has_suppressed_slots() {
        let mut world =
            World::new(spec("* * * * *", "UTC", Overlap::Allow, CatchUp::All), Duration::ZERO);
        let by = Principal { name: "ada".into(), from: "here".into() };
        let (schedule, reason) = ("s".to_owned(), "release day".to_owned());
        world.append(Event::SchedulePaused {
            schedule: schedule.clone(),
            by: by.clone(),
            reason: reason.clone(),
        });
        world.up(3 * MINUTE, false);
        world.append(Event::ScheduleResumed { schedule, by, reason });
        world.up(2 * MINUTE, false);
        assert_eq!(world.count(SlotFate::Suppressed), 3);
        assert_eq!(world.count(SlotFate::Fired), 2);
    }

    #[test]
    fn a_changed_schedule_begins_again() {
        let mut world =
            World::new(spec("0 * * * *", "UTC", Overlap::Allow, CatchUp::All), Duration::ZERO);
        world.up(HOUR, false);
        world.down(3 * HOUR);
        let before = world.fates().len();
        world.spec.cron = "30 * * * *".to_owned();
        world.introduce();
        assert_eq!(world.count(SlotFate::Missed), 3);
        assert_eq!(world.fates().len(), before + 3);
        assert_eq!(world.standing().watermark, Some(world.now));
    }

    #[test]
    fn a_schedule_that_moves_to_another_zone_neither_doubles_nor_loses_a_slot() {
        let zones = [
            ("UTC", "America/New_York"),
            ("Asia/Tokyo", "UTC"),
            ("Europe/Amsterdam", "Australia/Lord_Howe"),
        ];
        for (from, to) in zones {
            // Moved at every hour of a day, under a server and while none lived.
            for (hour, down) in
                (0..24_u32).flat_map(|hour| [(hour, Duration::ZERO), (hour, 30 * HOUR)])
            {
                let daily = spec("30 2 * * *", from, Overlap::Allow, CatchUp::None);
                let mut world = World::new(daily, Duration::ZERO);
                world.leap(DAY + hour * HOUR);
                let stopped = world.now;
                world.down(down);
                let moved = world.now;
                world.spec.time_zone = to.to_owned();
                let before = std::mem::replace(
                    &mut world.cron,
                    CronSchedule::parse("30 2 * * *", to).unwrap(),
                );
                world.leap(3 * DAY);
                let kept = due_after(&before, START, stopped);
                let all: Vec<_> = kept.chain(due_after(&world.cron, moved, world.now)).collect();
                assert_eq!(world.runs, all, "{from} -> {to} after {hour} h, down for {down:?}");
                let missed = world.entries.iter().filter_map(|entry| match &entry.event {
                    Event::SlotsDecided { count, fate: SlotFate::Missed, .. } => Some(*count),
                    _ => None,
                });
                let due = due_after(&before, stopped, moved).count();
                assert_eq!(missed.sum::<u64>(), u64::try_from(due).unwrap(), "{from} {down:?}");
            }
        }
    }

    #[test]
    fn a_journal_that_repeats_a_slot_is_refused() {
        let mut world =
            World::new(spec("* * * * *", "UTC", Overlap::Allow, CatchUp::None), Duration::ZERO);
        world.up(2 * MINUTE, false);
        let last = world.entries.last().unwrap().event.clone();
        world.append(last);
        assert!(Standing::replay(&world.entries).is_err());
    }

    fn overlaps() -> impl Strategy<Value = Overlap> {
        prop_oneof![Just(Overlap::Skip), Just(Overlap::QueueOne), Just(Overlap::Allow)]
    }

    fn catch_ups() -> impl Strategy<Value = CatchUp> {
        prop_oneof![Just(CatchUp::None), Just(CatchUp::Latest), Just(CatchUp::All)]
    }

    /// How long a server lives, how long none does, and whether it dies while it decides.
    fn lives() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
        let down = prop_oneof![0..120_u64, 0..7200_u64, 0..60_000_u64];
        prop::collection::vec((0..4000_u64, down, any::<bool>()), 1..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_slot_has_one_fate_and_the_right_one(
            cron in prop::sample::select(vec!["* * * * *", "*/7 * * * *", "30 2 * * *", "0 */2 * * *"]),
            zone in prop::sample::select(vec!["UTC", "America/New_York", "Australia/Lord_Howe"]),
            (overlap, catch_up) in (overlaps(), catch_ups()),
            (window, jitter) in (0..10_000_u64, prop_oneof![Just(0_u64), 0..100_u64]),
            run_length in 0..600_u64,
            lives in lives(),
        ) {
            let mut spec = spec(cron, zone, overlap, catch_up);
            spec.catch_up_window = Span::from_secs(window);
            spec.jitter = Span::from_secs(jitter);
            let mut world = World::new(spec, Duration::from_secs(run_length));
            for (up, down, dies) in lives {
                world.up(Duration::from_secs(up), dies);
                world.down(Duration::from_secs(down));
            }
            // Long enough for whatever is late to be caught up.
            world.up(Duration::from_secs(20_000), false);
            let fates = world.fates();
            let decided: Vec<Timestamp> = fates.iter().map(|(slot, _)| *slot).collect();
            let watermark = world.standing().watermark.unwrap();
            let all: Vec<Timestamp> = due_after(&world.cron, START, watermark).collect();
            prop_assert_eq!(decided, all, "every slot is decided once");
            let starts = fates.iter().filter(|(_, fate)| {
                matches!(fate, SlotFate::Fired | SlotFate::CaughtUp)
            });
            prop_assert_eq!(starts.count(), world.runs.len(), "every start has its run");
            let count = |fate| fates.iter().filter(|(_, found)| *found == fate).count();
            let caught = count(SlotFate::CaughtUp);
            match catch_up {
                CatchUp::None => prop_assert_eq!(caught, 0),
                CatchUp::Latest => prop_assert!(caught <= 6),
                CatchUp::All => {}
            }
            match overlap {
                Overlap::Skip => prop_assert!(world.most_at_once <= 1),
                Overlap::QueueOne => prop_assert!(world.most_at_once <= 2),
                Overlap::Allow => prop_assert_eq!(count(SlotFate::Skipped), 0),
            }
        }
    }
}
