//! Plugins of every temper, in text format, run through the whole host.

mod calls;
mod guest;
