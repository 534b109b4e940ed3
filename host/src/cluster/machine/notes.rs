//! Comparing notes: two members make sure by TCP that they know the same.
//!
//! Gossip is fast and forgets: a joiner gets a part of the members, a broadcast that was
//! missed does not come again. So every member compares digests with some other now and
//! then, and at once when it joins; only where they differ do the notes themselves go over,
//! first the other's, then what the other lacks.
//!
//! What another member says is news, not truth: whom it has for dead and we do not is asked
//! first, unless the member itself had said that it would go.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use foca::{Identity as _, Member, State};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    End, Id, Machine, Phase, Purpose,
    challenge::Cause,
    exchange::{Answer, Digests, MEMBERS_MAX, Notes, Question, Reply},
    meta::{Record, Subject},
    timers::Timer,
};

/// For one comparison.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// How long metadata may take to come by gossip before it is asked for.
const HUNGER: Duration = Duration::from_secs(1);
/// The longest pause between two such questions.
const HUNGER_MAX: Duration = Duration::from_secs(16);
/// About how long after news notes are compared: whoever has missed it gets it so.
const SOON: Duration = Duration::from_secs(2);
/// The longest pause between two such comparisons.
const SOON_MAX: Duration = Duration::from_secs(16);
/// Dead members that are told of at once.
const DEAD_MAX: usize = 256;
/// News that is passed on by whoever knew next to nothing before.
const FEW: usize = 8;
/// Contradictions that are followed up after one comparison.
const CHALLENGES_MAX: usize = 8;

/// When notes were compared, and what for.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    /// Whether a question for metadata is on its way.
    is_hungry: bool,
    /// Such questions in a row.
    meals: u32,
    /// Whether a comparison is to come soon, since something changed.
    is_soon: bool,
    /// Such comparisons in a row that did not find all equal.
    in_a_row: u32,
}

impl Machine {
    /// Compares notes with some member, now and then.
    pub(super) fn sync_by_turn(&mut self) {
        self.set_jittered(self.tuning.sync, Timer::Sync);
        self.sync_with_any();
    }

    /// Something changed, or may have changed unheard: notes are compared soon, and again
    /// until they are equal.
    pub(super) fn sync_soon(&mut self) {
        if !std::mem::replace(&mut self.syncs.is_soon, true) {
            let pause = SOON.saturating_mul(1 << self.syncs.in_a_row.min(8)).min(SOON_MAX);
            self.syncs.in_a_row += 1;
            self.set_jittered(pause, Timer::Soon);
        }
    }

    /// The timer of that.
    pub(super) fn sync_after_news(&mut self) {
        self.syncs.is_soon = false;
        self.sync_with_any();
    }

    pub(super) fn sync_with_any(&mut self) {
        let count = self.foca.num_members();
        if count == 0 {
            return;
        }
        let chosen = self.dice.usize(..count);
        let to = self.foca.iter_members().nth(chosen).map(|member| member.id().addr);
        if let Some(to) = to {
            self.sync(to);
        }
    }

    /// Compares notes with whoever is at `to`.
    pub(super) fn sync(&mut self, to: SocketAddr) {
        if self.phase != Phase::Member {
            return;
        }
        // Whoever is new tells of itself at once; of all others the digests say enough.
        let is_new = self.foca.num_members() == 0;
        let records = is_new.then(|| self.own.encode()).into_iter().collect();
        let notes = Notes { members: Vec::new(), records };
        let incarnation = self.incarnation();
        let digests = self.digests();
        let question = Question::Sync { incarnation, digests, notes };
        if self.ask(to, question, Purpose::Sync { notices: digests.notices }) {
            self.counters.syncs += 1;
        }
    }

    /// A member was found of which nothing is known: what it says of itself is on its way,
    /// or else has to be asked for.
    pub(super) fn lack_record(&mut self, id: &Id) {
        if !self.syncs.is_hungry && self.records.lock().get(&Subject::from(id)).is_none() {
            self.syncs.is_hungry = true;
            self.syncs.meals = 0;
            self.set_jittered(HUNGER, Timer::Hungry);
        }
    }

    pub(super) fn sync_for_records(&mut self) {
        let is_lacking = {
            let records = self.records.lock();
            self.foca.iter_members().any(|it| records.get(&Subject::from(it.id())).is_none())
        };
        self.syncs.is_hungry = is_lacking;
        if is_lacking {
            self.syncs.meals += 1;
            let pause = HUNGER.saturating_mul(1 << self.syncs.meals.min(8)).min(HUNGER_MAX);
            self.set_jittered(pause, Timer::Hungry);
            self.sync_with_any();
        }
    }

    pub(super) fn answer_sync(
        &mut self,
        from: Id,
        incarnation: u16,
        theirs: Digests,
        notes: &Notes,
    ) -> Answer {
        let alive = Member::new(from, incarnation, State::Alive);
        self.swim(|foca, to| foca.apply_many(std::iter::once(alive), true, to));
        self.merge(notes);
        let digests = self.digests();
        let notes = if digests.is_of_same_members(theirs) {
            self.word_of_suspicion(from)
        } else {
            self.all_notes()
        };
        if digests == theirs && notes == Notes::default() {
            return Answer::Equal;
        }
        let has_same_notices = digests.notices == theirs.notices;
        let versions =
            if has_same_notices { Vec::new() } else { self.handler.notices().versions() };
        Answer::Notes { digests, notes, versions }
    }

    /// What somebody is told who knows all that we do: it may have missed that it is
    /// suspected, and now it can refute.
    fn word_of_suspicion(&self, asker: Id) -> Notes {
        let known = self.known(asker.addr);
        let suspect = known.filter(|it| *it.id() == asker && it.state() == State::Suspect);
        Notes { members: suspect.into_iter().cloned().collect(), records: Vec::new() }
    }

    /// A comparison that was begun at `since`, with this digest of our `notices`.
    pub(super) fn sync_ended(&mut self, to: SocketAddr, notices: u64, since: Duration, end: End) {
        let (answer, is_current) = match end {
            End::Answered(Reply { answer, is_current, .. }) => (Some(answer), is_current),
            End::Refused | End::Failed => (None, false),
        };
        match answer {
            Some(Answer::Equal) => {
                self.counters.syncs_equal += 1;
                self.syncs.in_a_row = 0;
                self.compared(to, since, is_current);
            }
            Some(Answer::Notes { digests, notes, versions }) => {
                self.merge(&notes);
                self.sync_soon();
                self.tell_back(to, digests, &notes);
                if digests.notices == notices {
                    self.compared(to, since, is_current);
                } else {
                    self.trade(to, &versions, 0);
                }
            }
            Some(Answer::Alive { .. } | Answer::Trade { .. }) | None => {
                self.counters.syncs_failed += 1;
                if !self.syncs.is_soon && self.foca.num_members() > 0 {
                    self.sync_soon();
                }
            }
        }
    }

    /// Tells another member what it lacks, if it has told what it knows.
    fn tell_back(&mut self, to: SocketAddr, theirs: Digests, notes: &Notes) {
        let own = self.id().addr;
        let has_told = notes.members.iter().any(|member| member.id().addr != own);
        if has_told && !self.digests().is_of_same_members(theirs) {
            let lacked = self.lacked_by(notes);
            if lacked != Notes::default() {
                self.ask(to, Question::Push { notes: lacked }, Purpose::Push);
            }
        }
    }

    /// Takes in what another member knows.
    pub(super) fn merge(&mut self, notes: &Notes) {
        // Whoever learns more than it knew is the one that was away, and need not tell others.
        let mut fresh = Vec::new();
        for bytes in &notes.records {
            if self.records.lock().hear(bytes).is_ok_and(|news| news.is_some()) {
                fresh.push(bytes);
            }
        }
        let tells = fresh.len() <= self.foca.num_members() + FEW;
        if tells && !self.records.lock().is_flooded {
            for bytes in fresh {
                // Foca has its broadcasts only from here.
                if self.foca.add_broadcast(bytes).is_err() {
                    self.counters.swim_errors += 1;
                }
            }
        }
        let known: HashMap<SocketAddr, Member<Id>> = {
            let members = self.foca.iter_membership_state();
            members.map(|member| (member.id().addr, member.clone())).collect()
        };
        let own = self.id();
        let mut news = Vec::new();
        let mut contradictions = Vec::new();
        for member in &notes.members {
            let id = *member.id();
            self.sight(&id);
            match (known.get(&id.addr), member.state()) {
                // Of nobody: a former life of ours, or somebody who died long ago.
                (None, State::Down) if id != own => {}
                (Some(ours), State::Down) if *ours.id() == id => {
                    if ours.state() == State::Down {
                        continue;
                    }
                    if self.is_leaving(&id) {
                        news.push(member.clone());
                    } else {
                        let incarnation = ours.incarnation();
                        contradictions.push((id, incarnation, Cause::Word { id, incarnation }));
                    }
                }
                (Some(ours), State::Down) if ours.id().win_addr_conflict(&id) => {}
                (Some(ours), _) if *ours.id() == id && ours.state() == State::Down => {
                    contradictions.push((id, member.incarnation(), Cause::Dead));
                }
                (Some(ours), _) if !is_news(ours, member) => {}
                _ => news.push(member.clone()),
            }
        }
        if !news.is_empty() {
            let tells = news.len() <= self.foca.num_members() + FEW;
            self.swim(|foca, to| foca.apply_many(news.into_iter(), tells, to));
        }
        self.dice.shuffle(&mut contradictions);
        for (id, incarnation, cause) in contradictions.into_iter().take(CHALLENGES_MAX) {
            self.challenge(id, incarnation, cause);
        }
    }

    /// Digests of whom we take for alive, ourselves among them, what we know of them, and the
    /// notices that we have heard.
    pub(super) fn digests(&self) -> Digests {
        let ids = || {
            let others = self.foca.iter_members().map(foca::Member::id);
            others.chain(std::iter::once(self.foca.identity()))
        };
        let mut bytes = Vec::new();
        let members = ids().fold(0, |digest, id| {
            bytes.clear();
            id.encode(&mut bytes);
            digest ^ xxh3_64(&bytes)
        });
        let records = self.records.lock().digest(ids().map(Subject::from));
        Digests { members, records, notices: self.handler.notices().digest() }
    }

    /// All that we know, but for what is known of the dead: only the last of those.
    fn all_notes(&mut self) -> Notes {
        let own = Member::new(self.id(), self.incarnation(), State::Alive);
        let alive = self.foca.iter_members().take(MEMBERS_MAX).cloned();
        let mut members: Vec<_> = std::iter::once(own).chain(alive).collect();
        let dead = self.tombstones.latest(DEAD_MAX);
        members.extend(dead.map(|id| Member::new(id, 0, State::Down)));
        let records = self.records.lock();
        let subjects = members.iter().filter(|member| member.state() != State::Down);
        let subjects: HashSet<_> = subjects.map(|member| Subject::from(member.id())).collect();
        let records = records.iter().filter(|entry| subjects.contains(&entry.record.subject));
        let records = records.map(|entry| entry.bytes.to_vec()).collect();
        Notes { members, records }
    }

    /// What we know beyond `theirs`.
    fn lacked_by(&mut self, theirs: &Notes) -> Notes {
        let members: HashMap<_, _> =
            theirs.members.iter().map(|member| (member.id().addr, member)).collect();
        let records: HashMap<_, _> = theirs
            .records
            .iter()
            .filter_map(|bytes| Record::decode(bytes).ok())
            .map(|record| (record.subject, record.order()))
            .collect();
        let mut lacked = self.all_notes();
        lacked
            .members
            .retain(|it| members.get(&it.id().addr).is_none_or(|theirs| is_news(theirs, it)));
        lacked.records.retain(|bytes| {
            let ours = Record::decode(bytes);
            ours.is_ok_and(|it| records.get(&it.subject).is_none_or(|theirs| *theirs < it.order()))
        });
        lacked.cut();
        lacked
    }
}

/// Whether `told` is more than what is `known`, of whoever is at one address.
fn is_news(known: &Member<Id>, told: &Member<Id>) -> bool {
    if known.id() != told.id() {
        return told.id().win_addr_conflict(known.id());
    }
    let rank = |member: &Member<Id>| match member.state() {
        State::Alive => (0, member.incarnation(), 0),
        State::Suspect => (0, member.incarnation(), 1),
        State::Down => (1, 0, 0),
    };
    rank(told) > rank(known)
}

#[cfg(test)]
mod tests;
