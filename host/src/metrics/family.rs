//! A family of series that can be forgotten by whom they are about.
//!
//! A plugin or a group may leave while the node goes on, and its series with it: a
//! dashboard would show the last numbers of something that is gone, for ever. The
//! library's own family does not tell which series it has, so this one keeps count.

use std::{
    collections::HashSet,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{
        MetricType, TypedMetric,
        family::{Family as Series, MetricConstructor},
    },
};

/// One metric for each set of labels. Clones share their series.
#[derive(Clone, Debug)]
pub(super) struct Family<S, M, C = fn() -> M> {
    series: Series<S, M, C>,
    known: Arc<Mutex<HashSet<S>>>,
}

impl<S: Clone + Hash + Eq, M: Default> Default for Family<S, M> {
    fn default() -> Self {
        Self { series: Series::default(), known: Arc::default() }
    }
}

impl<S: Clone + Hash + Eq, M, C> Family<S, M, C> {
    /// A family whose metrics are made by `constructor`.
    pub(super) fn new_with_constructor(constructor: C) -> Self {
        Self { series: Series::new_with_constructor(constructor), known: Arc::default() }
    }

    /// The metric with these labels, made if there is none.
    pub(super) fn get_or_create_owned(&self, labels: &S) -> M
    where
        M: Clone,
        C: MetricConstructor<M>,
    {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(labels.clone());
        self.series.get_or_create_owned(labels)
    }

    /// Forgets the series whose first label has the value `name`. Whoever still counts
    /// in one of them counts for nobody.
    pub(super) fn forget(&self, name: &str)
    where
        S: AsRef<[(&'static str, String)]>,
        C: MetricConstructor<M>,
    {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|labels| {
            let is_about = labels.as_ref().first().is_some_and(|(_, value)| value == name);
            if is_about {
                self.series.remove(labels);
            }
            !is_about
        });
    }
}

impl<S, M, C> EncodeMetric for Family<S, M, C>
where
    S: Clone + Hash + Eq + EncodeLabelSet,
    M: EncodeMetric + TypedMetric,
    C: MetricConstructor<M>,
{
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        self.series.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.series.metric_type()
    }

    fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}
