//! Plugins of every temper, in text format, run through the whole host.

mod bombs;
mod calls;
mod damaged;
mod egress;
mod guest;
mod health;
mod imports;
mod instances;
mod isolation;
mod lifting;
mod loading;
mod loops;
mod modules;
mod nested;
mod reload;
mod secrets;
