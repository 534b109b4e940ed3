//! From the cluster's view to the fleet's members.

use std::sync::Arc;

use tokio::{sync::watch, task::spawn_blocking};
use tracing::{error, info};

use super::purges::Purges;
use crate::{
    cluster::View,
    front::Latch,
    metrics::ClusterMetrics,
    peer::{Fleet, Member},
};

/// Has `fleet` follow `view`. Ends when the cluster does; if that comes unasked, the node is
/// not ready any more.
pub(super) async fn follow(
    mut view: watch::Receiver<Arc<View>>,
    fleet: Arc<Fleet>,
    (purges, metrics): (Arc<Purges>, ClusterMetrics),
    latch: Arc<Latch>,
) {
    let mut known = Vec::new();
    loop {
        let members = members(&view.borrow_and_update());
        if members != known {
            let names: Vec<_> = members.iter().map(|it| it.address.to_string()).collect();
            info!(members = names.len(), peers = ?names, "Who owns keys has changed.");
            let (fleet, members) = (Arc::clone(&fleet), members.clone());
            // A ring takes some milliseconds to make.
            if spawn_blocking(move || fleet.set_members(&members)).await.is_err() {
                error!("A ring could not be made, which is a defect of this program.");
            }
        }
        known = members;
        let view_now = view.borrow().clone();
        let suspects = view_now.ring().filter(|member| member.is_suspect);
        let suspects: Vec<_> = suspects.map(|member| member.meta.peer).collect();
        fleet.suspect(&suspects);
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.alive.set(gauge(view_now.members.len() + view_now.unknown));
        metrics.in_ring.set(gauge(known.len()));
        metrics.suspect.set(gauge(suspects.len()));
        if known.iter().any(|it| it.is_self) {
            latch.release();
        }
        if view.changed().await.is_err() {
            purges.has_ended();
            latch
                .close("membership has ended, which is a defect of this program; restart the node");
            error!("Membership has ended; this node goes on with the members it knew last.");
            return;
        }
    }
}

/// Those who are to own keys.
fn members(view: &View) -> Vec<Member> {
    let member = |it: &crate::cluster::Member| Member {
        name: it.node.to_string(),
        address: it.meta.peer,
        weight: u32::from(it.meta.weight),
        is_self: it.is_self,
    };
    view.ring().map(member).collect()
}
