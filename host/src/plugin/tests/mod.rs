//! Plugins of every temper, in text format, run through the whole host.

mod calls;
mod egress;
mod guest;
mod imports;
mod instances;
mod loading;
mod loops;
mod wasi;
