//! What a guest imports of WASI, in text format.

use super::guest::Guest;

impl Guest {
    /// Hands the component's core functions to the core module, by name and type.
    fn with_hosts(self, functions: &[(&str, &str)]) -> Self {
        functions.iter().fold(self, |guest, (name, ty)| guest.with_host(name, ty))
    }

    /// `$subscribe`: a pollable that is ready in so many nanoseconds; `$block`, which
    /// waits for one; `$poll`, which waits for the first of a list (pointer, length) and
    /// leaves the list of those that are ready at a third pointer.
    pub(super) fn with_clock(self) -> Self {
        self.with_component(
            "(import \"wasi:io/poll@0.2.0\" (instance $wasi-poll
               (export \"pollable\" (type $pollable (sub resource)))
               (export \"[method]pollable.block\" (func (param \"self\" (borrow $pollable))))
               (export \"poll\" (func (param \"in\" (list (borrow $pollable))) (result (list u32))))))
             (alias export $wasi-poll \"pollable\" (type $pollable))
             (import \"wasi:clocks/monotonic-clock@0.2.0\" (instance $wasi-clock
               (alias outer 1 $pollable (type $outer))
               (export \"pollable\" (type $own (eq $outer)))
               (export \"subscribe-duration\" (func (param \"when\" u64) (result (own $own))))))
             (core func $block (canon lower (func $wasi-poll \"[method]pollable.block\")))
             (core func $poll (canon lower (func $wasi-poll \"poll\")
               (memory (core memory $memory)) (realloc (core func $realloc))))
             (core func $drop-pollable (canon resource.drop $pollable))
             (core func $subscribe (canon lower (func $wasi-clock \"subscribe-duration\")))",
        )
        .with_hosts(&[
            ("subscribe", "(param i64) (result i32)"),
            ("block", "(param i32)"),
            ("poll", "(param i32 i32 i32)"),
            ("drop-pollable", "(param i32)"),
        ])
    }

    /// `$peek`: whether the group `switch` has the key in memory that is at this pointer
    /// and has this length. The plugin must be granted that group.
    pub(super) fn with_switch(self) -> Self {
        self.with_component(
            "(import \"cachecluster:plugin/cache@0.1.0\" (instance $cache
               (type $cache-error' (variant (case \"no-such-group\") (case \"denied\")
                 (case \"cycle\") (case \"too-large\") (case \"failed\" string)))
               (export \"cache-error\" (type $cache-error (eq $cache-error')))
               (export \"peek\" (func (param \"group\" string) (param \"key\" string)
                 (result (result (option (list u8)) (error $cache-error)))))))
             (core func $cache-peek (canon lower (func $cache \"peek\")
               (memory (core memory $memory)) (realloc (core func $realloc))))",
        )
        .with_host("cache-peek", "(param i32 i32 i32 i32 i32)")
        .with_core(
            "(data (i32.const 2200) \"switch\")
             (func $peek (param $at i32) (param $len i32) (result i32)
               (call $cache-peek (i32.const 2200) (i32.const 6)
                 (local.get $at) (local.get $len) (i32.const 2304))
               (i32.and (i32.eqz (i32.load8_u (i32.const 2304)))
                 (i32.load8_u (i32.const 2308))))",
        )
    }
}
