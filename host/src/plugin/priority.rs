//! Who goes first when cores are short: whoever serves from memory, then guests, then the
//! compiler.
//!
//! A thread that has slept all along and wakes up to answer a hit does not take a core from
//! one of its own priority before that one's slice is over, which is milliseconds. It does
//! from one of a lower priority.

/// Lowers the priority of this thread by so many steps of `nice`; elsewhere than on Linux,
/// where priorities belong to processes, nothing.
pub(super) fn lower(steps: i32) {
    #[cfg(target_os = "linux")]
    // It may be refused, as in some sandboxes: then the thread takes its fair share.
    rustix::process::nice(steps).ok();
    #[cfg(not(target_os = "linux"))]
    let _ = steps;
}
