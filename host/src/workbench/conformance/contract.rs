//! The profile `contract`: what fits any getter, whatever it gets and from where.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{
    Case,
    stage::{
        Miss, Stage, failed, get, get_soundly, get_with, get_within, key_text, no_fault, skipped,
    },
};
use crate::{
    group::Getter as _,
    plugin::{Ended, Problem},
    workbench::{Mode, answer, fill},
};

/// What is shown of any getter, in the order of docs/conformance.md.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "loads",
        shows: "it instantiates, prepares and checks itself within its limits",
        run: |stage| Box::pin(loads(stage)),
    },
    Case {
        name: "settings",
        shows: "without settings it loads, or refuses with a text",
        run: |stage| Box::pin(settings(stage)),
    },
    Case {
        name: "empty-key",
        shows: "the empty key is answered, or refused",
        run: |stage| Box::pin(empty_key(stage)),
    },
    Case {
        name: "odd-keys",
        shows: "keys of any characters end in no fault",
        run: |stage| Box::pin(odd_keys(stage)),
    },
    Case {
        name: "long-keys",
        shows: "keys of up to 64 KiB end in no fault",
        run: |stage| Box::pin(long_keys(stage)),
    },
    Case {
        name: "many-keys",
        shows: "300 keys in a row end in no fault",
        run: |stage| Box::pin(many_keys(stage)),
    },
    Case {
        name: "agrees",
        shows: "the same key twice has the same answer",
        run: |stage| Box::pin(agrees(stage)),
    },
    Case {
        name: "concurrent",
        shows: "64 calls at once are answered like one after the other",
        run: |stage| Box::pin(concurrent(stage)),
    },
    Case {
        name: "validator",
        shows: "a call with a validator is answered",
        run: |stage| Box::pin(validator(stage)),
    },
    Case {
        name: "deadline",
        shows: "a call that is cut off leaves the plugin well",
        run: |stage| Box::pin(deadline(stage)),
    },
    Case {
        name: "reuse",
        shows: "what an instance answered before leaves no trace",
        run: |stage| Box::pin(reuse(stage)),
    },
    Case {
        name: "batch",
        shows: "get-many answers each key in order, as get does",
        run: |stage| Box::pin(batch(stage)),
    },
];

/// Keys that break careless code.
const ODD_KEYS: [&str; 24] = [
    " ",
    "a b",
    "\0",
    "a\0b",
    "\n",
    "a\r\nHost: b",
    "\u{1b}[31m",
    "\u{7f}",
    "/",
    "//",
    "/lead",
    "a//b",
    ".",
    "..",
    "../../etc/passwd",
    "%",
    "%2F",
    "%00",
    "?x=1&y=#z",
    "\\\"'`${}<>|;",
    "Zürich 猫 🦀",
    "e\u{301}\u{202e}abc",
    "\u{feff}",
    "\u{10ffff}",
];

/// Gets at once.
const CONCURRENT: usize = 64;

/// Gets in a row.
const MANY: usize = 300;

type Shown = Result<(), Miss>;

/// The keys whose answers are compared: the manifest's and some plain ones.
fn keys(stage: &Stage) -> Vec<String> {
    let mut keys: BTreeSet<String> = stage.keys().into_iter().take(32).collect();
    keys.extend(["a", "b", "key", "no-such-key"].map(str::to_owned));
    keys.into_iter().collect()
}

async fn loads(stage: Arc<Stage>) -> Shown {
    stage.load().await.map(drop)
}

async fn settings(stage: Arc<Stage>) -> Shown {
    let (_origin, mut settings) = stage.play().await?;
    settings.config.clear();
    settings.secrets.clear();
    match stage.load_as(stage.mode(), &settings).await {
        Ok(plugin) => get_soundly(&plugin, "key").await.map(drop),
        Err(error) => match error.problem {
            Problem::Lifecycle { is_fault: false, .. } => Ok(()),
            problem => failed(format!("without settings: {problem}")),
        },
    }
}

async fn empty_key(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = stage.load().await?;
    get_soundly(&plugin, "").await.map(drop)
}

async fn odd_keys(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = stage.load().await?;
    for key in ODD_KEYS {
        get_soundly(&plugin, key).await?;
    }
    Ok(())
}

async fn long_keys(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = stage.load().await?;
    for length in [1 << 10, 4 << 10, 16 << 10, 64 << 10] {
        for unit in ["k", "ü", "%"] {
            get_soundly(&plugin, &unit.repeat(length / unit.len())).await?;
        }
    }
    Ok(())
}

async fn many_keys(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = stage.load().await?;
    for number in 0..MANY {
        get_soundly(&plugin, &format!("key-{number}")).await?;
    }
    Ok(())
}

async fn agrees(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = stage.load().await?;
    let mut compared = Compared::default();
    for key in keys(&stage) {
        let (one, two) = (get_soundly(&plugin, &key).await?, get_soundly(&plugin, &key).await?);
        compared.take(&key, &one, &two, "the second time")?;
    }
    compared.end()
}

async fn concurrent(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = stage.load().await?;
    let mut alone = Vec::new();
    for key in keys(&stage) {
        let ended = get_soundly(&plugin, &key).await?;
        alone.push((key, ended));
    }
    let mut calls = JoinSet::new();
    for number in 0..CONCURRENT {
        let plugin = Arc::clone(&plugin);
        let (key, ended) = alone[number % alone.len()].clone();
        calls.spawn(async move { (get(&plugin, &key).await, key, ended) });
    }
    let mut compared = Compared::default();
    while let Some(call) = calls.join_next().await {
        let Ok((together, key, alone)) = call else { return failed("a call panicked") };
        compared.take(&key, &alone, &no_fault(&key, together)?, "among others")?;
    }
    compared.end()
}

async fn validator(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = stage.load().await?;
    for key in keys(&stage) {
        let ended = get_soundly(&plugin, &key).await?;
        let own = answer::value(&ended).and_then(|value| value.validator()).map(str::to_owned);
        for validator in own.as_deref().into_iter().chain(["\"no such validator\"", "", "ü\n"]) {
            no_fault(&key, get_with(&plugin, &key, Some(validator)).await)?;
        }
    }
    Ok(())
}

async fn deadline(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = stage.load().await?;
    let keys = keys(&stage);
    let Some(key) = keys.first() else { return skipped("there is no key") };
    let before = get_soundly(&plugin, key).await?;
    for micros in [0, 100, 1_000, 5_000] {
        // However it ends, it ends: the case has a bound of time.
        get_within(&plugin, key, Duration::from_micros(micros)).await;
    }
    let after = get_soundly(&plugin, key).await?;
    let mut compared = Compared::default();
    compared.take(key, &before, &after, "after calls that were cut off")?;
    compared.end()
}

/// Warm, the keys come in their order; fresh, in the opposite one.
async fn reuse(stage: Arc<Stage>) -> Shown {
    let (_origin, settings) = stage.play().await?;
    let plugin = stage.load_as(stage.mode(), &settings).await?;
    let other = match stage.mode() {
        Mode::Warm => Mode::Fresh,
        Mode::Fresh => Mode::Warm,
    };
    let other = stage.load_as(other, &settings).await?;
    let mut keys = keys(&stage);
    keys.extend(ODD_KEYS.map(str::to_owned));
    if stage.mode() == Mode::Fresh {
        keys.reverse();
    }
    let mut compared = Compared::default();
    for key in keys.iter().chain(keys.iter().rev()) {
        let (one, two) = (get_soundly(&plugin, key).await?, get_soundly(&other, key).await?);
        compared.take(key, &one, &two, "in an instance that lives otherwise")?;
    }
    compared.end()
}

async fn batch(stage: Arc<Stage>) -> Shown {
    let (plugin, _origin) = stage.load().await?;
    if !plugin.status().exports.batch {
        return skipped("it does not export batch-getter");
    }
    let keys = keys(&stage);
    let time = plugin.status().limits.timeout;
    let faults = plugin.status().faults;
    let together = plugin.load_many(keys.iter().map(|key| fill(key, None, time)).collect()).await;
    if plugin.status().faults > faults {
        let reason = plugin.status().last_error.map(|error| error.message).unwrap_or_default();
        return failed(format!("get-many of {} keys: {reason}", keys.len()));
    }
    let mut compared = Compared::default();
    for (key, together) in keys.iter().zip(together) {
        let together = match together {
            Ok(outcome) => Ended::Answered(outcome),
            Err(error) => Ended::Failed(error),
        };
        let alone = get_soundly(&plugin, key).await?;
        compared.take(key, &alone, &together, "in get-many")?;
    }
    compared.end()
}

/// Answers that were compared, and whether their values agreed.
#[derive(Default)]
struct Compared {
    /// A key whose value changes, of a getter whose values may change.
    changing: Option<String>,
}

impl Compared {
    /// Compares two answers for `key`. Kinds must agree; values that do not are kept for
    /// [`Compared::end`].
    fn take(&mut self, key: &str, one: &Ended, two: &Ended, when: &str) -> Shown {
        if answer::word(one) != answer::word(two) {
            return failed(format!(
                "the get of {} is {}, and {when} {}",
                key_text(key),
                answer::line(one),
                answer::line(two)
            ));
        }
        let body = |ended| answer::value(ended).map(|value| value.body().to_vec());
        if body(one) != body(two) {
            self.changing.get_or_insert_with(|| key_text(key));
        }
        Ok(())
    }

    fn end(self) -> Shown {
        match self.changing {
            None => Ok(()),
            Some(key) => skipped(format!(
                "the value of {key} changes from call to call, which is right only if it does so \
                 at its source"
            )),
        }
    }
}
