//! The system's allocator, set up so that a budget of bytes is kept in pages too.
//!
//! The store counts what an allocation really takes ([`taken`]), but no count helps
//! against an allocator that keeps what was given back. As glibc comes, every few
//! threads have an arena of their own and none takes up what another has free, and
//! values of 100 KiB lie between small ones: while four times the budget of values of
//! random sizes flows through, a process of eight busy threads grows to 1.4 times the
//! budget. [`settle`] brings that down to the budget.
//!
//! Other allocators did worse, and were left out: under the same flow mimalloc 2 and 3
//! grew to 1.5 to 2.3 times the budget, jemalloc to 1.3 to 1.7 times. With jemalloc told
//! to give every free page back at once it was 1.1, but its size classes take 1,280
//! bytes for a value of 1 KiB.

/// Allocations from this size on are mapped one by one and go back to the system when
/// they are freed. Lower wastes less to holes and more to whole pages (an eighth of
/// such an allocation at worst), and each costs a system call and page faults: a few
/// microseconds, in a fill.
const MAPPED_FROM: usize = 32 << 10;

/// Free bytes at the heap's end beyond which they go back to the system.
const TRIMMED_FROM: usize = 1 << 20;

const PAGE: usize = 4_096;

/// Sets the allocator up for this process: for `main`, before it starts any thread. A
/// program that embeds a node may call it too; it is for the program to decide.
///
/// One arena serves all threads. Small allocations do not meet there: each thread has
/// a cache of them. Where the allocator is not glibc's, nothing is done.
pub fn settle() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, MAPPED_FROM),
        (libc::M_TRIM_THRESHOLD, TRIMMED_FROM),
    ] {
        let value = libc::c_int::try_from(value).unwrap_or(libc::c_int::MAX);
        #[expect(unsafe_code, reason = "there is no other way to set it from within")]
        // SAFETY: mallopt takes two numbers, touches only the allocator's own settings,
        // under its lock, and refuses what it does not know.
        unsafe {
            libc::mallopt(option, value);
        }
    }
}

/// Bytes that an allocation of `bytes` takes: a word of the allocator's own, in steps of
/// 16, or in whole pages where it is mapped by itself.
pub(crate) const fn taken(bytes: usize) -> usize {
    let with_header = (bytes + size_of::<usize>()).next_multiple_of(16);
    if with_header < 32 {
        32
    } else if with_header < MAPPED_FROM {
        with_header
    } else {
        (with_header + size_of::<usize>()).next_multiple_of(PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_allocations_take_steps_of_16_and_large_ones_pages() {
        for (bytes, expected) in
            [(0, 32), (24, 32), (25, 48), (1_064, 1_072), (32_767, 9 * PAGE), (65_536, 17 * PAGE)]
        {
            assert_eq!(taken(bytes), expected, "{bytes}");
        }
    }
}
