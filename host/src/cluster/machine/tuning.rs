//! The protocol's numbers, and how some of them follow the cluster's size.
//!
//! Invariants:
//! - the size of a packet is a constant of the wire's version (F2): foca must never be
//!   given another one while it runs;
//! - updates are sent as often as memberlist would, rounded up (F4).

use std::{
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use foca::{Config, PeriodicParams};

use super::envelope::PAYLOAD_MAX;

/// How fast the cluster notices and tells. The defaults suit nodes in one region.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// Time between two probes of this node, of which every other one is of the same member:
    /// see `watch`. A death is found within two of them, whatever the cluster's size. More
    /// than three times `rtt`.
    pub period: Duration,
    /// How long the answer to a probe may take before others are asked to try.
    pub rtt: Duration,
    /// Others that are asked to try, and members that news goes to at once.
    pub fanout: usize,
    /// Time between two rounds of gossip while there is news.
    pub gossip: Duration,
    /// The least time for a suspect to refute. Longer than the pauses that a healthy node
    /// may have; a node whose process died does not wait for it.
    pub suspicion: Duration,
    /// Time between two comparisons of notes with some member, if nothing happens: after a
    /// change they are compared sooner.
    pub sync: Duration,
    /// Time between two tries to reach somebody who should be a member and is not.
    pub rejoin: Duration,
    /// The first and the longest pause between two tries to join.
    pub join: (Duration, Duration),
    /// How long a member must serve before it enters the ring.
    pub settle: Duration,
    /// Time between two views at least.
    pub coalesce: Duration,
    /// How long the dead are remembered.
    pub forget: Duration,
    /// Time between the word that this node is leaving and its leave.
    pub farewell: Duration,
    /// How long notices are kept for members that are away. Whoever is away for longer learns
    /// only that it missed some.
    pub keep: Duration,
    /// How many of them are kept at most.
    pub keep_notices: usize,
    /// And how many bytes of them. More than the longest notice.
    pub keep_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            period: Duration::from_millis(500),
            rtt: Duration::from_millis(150),
            fanout: 3,
            gossip: Duration::from_millis(100),
            suspicion: Duration::from_secs(8),
            sync: Duration::from_secs(40),
            rejoin: Duration::from_secs(10),
            join: (Duration::from_millis(500), Duration::from_secs(10)),
            settle: Duration::from_secs(2),
            coalesce: Duration::from_millis(250),
            forget: Duration::from_hours(24),
            farewell: Duration::from_secs(1),
            keep: Duration::from_mins(10),
            keep_notices: 8_192,
            keep_bytes: 4 * 1024 * 1024,
        }
    }
}

/// foca's configuration for a cluster of `members`.
pub(super) fn config(tuning: &Tuning, members: usize) -> Config {
    Config {
        // The other half of the probes are the watch's.
        probe_period: 2 * tuning.period,
        probe_rtt: tuning.rtt,
        num_indirect_probes: at_least_one(indirect(tuning, members)),
        max_transmissions: transmissions(members),
        suspect_to_down_after: suspicion(tuning, members),
        // Not by a timer for each death: see `tombstones`.
        remove_down_after: None,
        max_packet_size: at_least_one(PAYLOAD_MAX),
        notify_down_members: true,
        // What these are for is done better by comparing notes and by our own knocking.
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams {
            frequency: tuning.gossip,
            num_members: at_least_one(tuning.fanout),
        }),
    }
}

/// How many times each update is sent by each node: 4 · ⌈log10(n + 1)⌉ as memberlist has
/// it, and four times more below a hundred, where one in fifty updates would miss somebody.
pub(super) fn transmissions(members: usize) -> NonZeroU8 {
    let digits = members.checked_ilog10().unwrap_or(0) + 1;
    let times = if digits < 3 { digits + 1 } else { digits };
    u8::try_from(4 * times).ok().and_then(NonZeroU8::new).unwrap_or(NonZeroU8::MAX)
}

/// Others that foca asks to try. A suspicion is told to everybody and so is its refutation: a
/// large cluster can afford fewer of them for each member, and one more that tries leaves a
/// fifth of them where one packet in twenty gets lost.
fn indirect(tuning: &Tuning, members: usize) -> usize {
    let hundreds = members.checked_ilog10().unwrap_or(0).saturating_sub(2);
    tuning.fanout + usize::try_from(hundreds).unwrap_or(0)
}

/// 4 seconds · log10(n), and no less than the setting.
fn suspicion(tuning: &Tuning, members: usize) -> Duration {
    let digits = f64::from(u32::try_from(members.max(1)).unwrap_or(u32::MAX)).log10();
    // In whole seconds, so that it changes rarely.
    Duration::from_secs_f64((4.0 * digits).ceil()).max(tuning.suspicion)
}

fn at_least_one(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f2_packets_keep_their_size_whatever_the_clusters() {
        let sizes = [1, 10, 99, 1_000, 100_000];
        let sizes = sizes.map(|n| config(&Tuning::default(), n).max_packet_size.get());
        assert_eq!(sizes, [PAYLOAD_MAX; 5]);
    }

    #[test]
    fn f4_updates_are_sent_often_enough_for_all_to_hear() {
        let sent = [1, 9, 10, 99, 100, 999, 1_000, 5_000].map(|n| transmissions(n).get());
        assert_eq!(sent, [8, 8, 12, 12, 12, 12, 16, 16]);
    }

    #[test]
    fn a_suspicion_takes_more_others_in_a_large_cluster() {
        let asked = [1, 100, 999, 1_000, 5_000, 10_000].map(|n| indirect(&Tuning::default(), n));
        assert_eq!(asked, [3, 3, 3, 4, 4, 5]);
    }

    #[test]
    fn a_suspect_of_a_large_cluster_has_longer() {
        let tuning = Tuning::default();
        let seconds = [5, 100, 1_000, 5_000].map(|n| suspicion(&tuning, n).as_secs());
        assert_eq!(seconds, [8, 8, 12, 15]);
    }
}
