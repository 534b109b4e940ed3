//! The cluster as operators see it.

use std::{collections::HashSet, net::SocketAddr};

use serde_json::{Value, json};

use super::beginning::Begun;
use crate::{
    cluster::{Member, State, View},
    config,
    discovery::Report,
    metrics::MembershipCounts,
    peer::Fleet,
};

/// Everything about the cluster that an operator may want to know: little as long as this node
/// has not `begun` to be a member.
pub(super) fn describe(begun: Option<&Begun>, fleet: &Fleet, settings: &config::Cluster) -> Value {
    let Some(Begun { cluster, discovery, .. }) = begun else {
        return json!({
            "name": settings.name,
            "node": null,
            "has_key": settings.has_key(),
            "seeds": settings.seeds,
            "discovery": [],
            "owners": fleet.size(),
            "unknown": 0,
            "members": [],
        });
    };
    let view = cluster.view();
    let view = view.borrow().clone();
    let (status, members) = (cluster.status(), places(&view));
    json!({
        "name": settings.name,
        "node": cluster.node().to_string(),
        "has_key": settings.has_key(),
        "seeds": settings.seeds,
        "discovery": discovery.reports().iter().map(|it| source(it, &members)).collect::<Vec<_>>(),
        "ring": format!("{:016x}", view.ring_digest()),
        "health": status.health,
        "lag_max_seconds": status.lag_max.as_secs_f64(),
        "owners": fleet.size(),
        "unknown": view.unknown,
        "members": view.members.iter().map(member).collect::<Vec<_>>(),
    })
}

fn source(report: &Report, members: &HashSet<SocketAddr>) -> Value {
    json!({
        "source": report.kind,
        "found": report.found.len(),
        "joined": joined(report, members),
        "last_success_seconds": report.age.map(|age| age.as_secs_f64()),
        "error": report.trouble,
    })
}

/// Where the members are.
fn places(view: &View) -> HashSet<SocketAddr> {
    view.members.iter().map(|member| member.gossip).collect()
}

/// How many of those whom a source has found are members.
fn joined(report: &Report, members: &HashSet<SocketAddr>) -> usize {
    report.found.iter().filter(|place| members.contains(place)).count()
}

/// What operators see of what the machine counts, and of what discovery has led to.
pub(super) fn counts(begun: &Begun) -> MembershipCounts {
    let Begun { cluster, discovery, .. } = begun;
    let view = cluster.view();
    let members = places(&view.borrow());
    let joined =
        discovery.reports().iter().map(|it| (it.kind, joined(it, &members) as u64)).collect();
    let counters = cluster.status().counters;
    MembershipCounts {
        packets_refused: [
            ("length", counters.rejected_length),
            ("version", counters.rejected_version),
            ("key", counters.rejected_key),
            ("seal", counters.rejected_seal),
            ("replay", counters.rejected_replay),
            ("malformed", counters.rejected_malformed),
        ],
        udp_degraded: counters.udp_degraded,
        joined,
    }
}

fn member(member: &Member) -> Value {
    let state = match member.meta.state {
        State::Joining => "joining",
        State::Serving => "serving",
        State::Draining => "draining",
    };
    json!({
        "node": member.node.to_string(),
        "gossip": member.gossip.to_string(),
        "peers": member.meta.peer.to_string(),
        "state": if member.is_suspect { "suspect" } else { state },
        "in_ring": member.in_ring,
        "weight": member.meta.weight,
        "zone": member.meta.zone,
        "version": member.meta.version,
        "plugins": member.meta.plugins.iter().map(|it| format!("{it:016x}")).collect::<Vec<_>>(),
        "is_self": member.is_self,
        "generation": member.generation,
    })
}
