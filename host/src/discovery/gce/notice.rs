//! Word that this instance is about to be stopped.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;

use super::metadata::{Metadata, MetadataError};

/// Before a value that is not there is looked for again.
const ABSENT: Duration = Duration::from_mins(1);

/// After a question that failed; then twice as long, up to a minute.
const AGAIN: Duration = Duration::from_secs(1);

/// Between two questions, whatever a server does that should have waited.
const PACE: Duration = Duration::from_secs(1);

/// Waits until this instance is told to stop, and says how that was told: it is preempted, or
/// somebody stops it and it may take its time. To be moved to another machine is no reason.
pub async fn stopping(metadata: Metadata) -> &'static str {
    tokio::select! {
        () = turns(&metadata, "instance/preempted", "TRUE") => "this instance is preempted",
        () = turns(&metadata, "instance/shutdown-details/stop-state", "PENDING_STOP") => {
            "this instance is being stopped"
        }
    }
}

/// Waits until the value at `path` is `wanted`.
async fn turns(metadata: &Metadata, path: &str, wanted: &str) {
    // No value has this tag, so that the first answer comes at once.
    const NONE: &str = "0";
    let (mut etag, mut pause) = (NONE.to_owned(), AGAIN);
    loop {
        let asked = Instant::now();
        let rest = match metadata.wait_for_change(path, &etag).await {
            Ok((value, _)) if value == wanted => return,
            Ok((_, tag)) => {
                pause = AGAIN;
                // Without a tag there is nothing to wait for.
                let rest =
                    if tag.is_some() { PACE.saturating_sub(asked.elapsed()) } else { 5 * PACE };
                etag = tag.unwrap_or_else(|| NONE.to_owned());
                rest
            }
            Err(error) => {
                debug!(%error, path, "Whether this instance is to stop is not known.");
                NONE.clone_into(&mut etag);
                let rest = if matches!(error, MetadataError::NotThere(_)) { ABSENT } else { pause };
                pause = (2 * pause).min(ABSENT);
                rest
            }
        };
        sleep(rest.mul_f64(1.0 + 0.1 * fastrand::f64())).await;
    }
}
