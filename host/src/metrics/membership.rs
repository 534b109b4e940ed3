//! What membership counts by itself, read whenever somebody looks: its own state machine has
//! never heard of metrics.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// What has been counted since the start, and who is there now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipCounts {
    /// Packets that were not believed, by reason.
    pub packets_refused: [(&'static str, u64); 6],
    /// Times that a member answered by TCP which had not by UDP.
    pub udp_degraded: u64,
    /// Members among the places that each source of them named when it last could say.
    pub joined: Vec<(&'static str, u64)>,
}

/// A family that asks whoever counts.
pub(super) struct Counted<R>(pub(super) R);

impl<R> fmt::Debug for Counted<R> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Counted").finish_non_exhaustive()
    }
}

impl<R> Collector for Counted<R>
where
    R: Fn() -> MembershipCounts + Send + Sync + 'static,
{
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = (self.0)();
        let any = ConstCounter::new(0_u64).metric_type();
        let mut family = to.encode_descriptor(
            "cluster_packets_refused",
            "Packets of gossip that were not believed, by reason",
            None,
            any,
        )?;
        for (reason, count) in counts.packets_refused {
            let labels = [("reason", reason)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        let family = to.encode_descriptor(
            "cluster_udp_degraded",
            "Times a member answered by TCP that had not by UDP: something loses datagrams",
            None,
            any,
        )?;
        ConstCounter::new(counts.udp_degraded).encode(family)?;
        let any = ConstGauge::new(0_u64).metric_type();
        let mut family = to.encode_descriptor(
            "discovery_joined",
            "Members among the places that a source named when it last could say",
            None,
            any,
        )?;
        for (source, count) in counts.joined {
            ConstGauge::new(count).encode(family.encode_family(&[("source", source)])?)?;
        }
        Ok(())
    }
}
