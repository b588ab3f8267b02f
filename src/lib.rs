#![doc = include_str!("ARCHITECTURE.md")]

pub mod cache;
pub mod checkpoint;
pub mod cli;
pub mod content;
pub mod crypto;
pub mod fuse;
pub mod gateway;
pub mod index;
pub mod log;
pub mod os;
pub mod records;
pub mod store;
pub mod types;
pub mod upload;
pub mod vault;
pub mod vfs;
