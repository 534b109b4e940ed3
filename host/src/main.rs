//! The `cachecluster` binary.
fn main() {}
