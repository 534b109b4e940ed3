//! The workbench: what the author of a plugin does with it before a node has it.
//!
//! A plugin is a *project*, a folder with the manifest `plugin.toml`, or just the file of
//! a component. Whatever is tried here is tried in the real host: the same engine, the
//! same limits, the same egress as in a node, only without one.
//!
//! - `manifest`, `expectation`, `project`: what the author wrote down, and where.

pub mod expectation;
pub mod manifest;
pub mod project;
