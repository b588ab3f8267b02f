//! s3vault: an S3 bucket as an ordinary directory, encrypted on this machine.
//!
//! The map of the rooms, the arrows between them and the walks through them are in
//! `ARCHITECTURE.md` beside this file.

pub mod cache;
pub mod cli;
pub mod content;
pub mod crypto;
pub mod fuse;
pub mod gateway;
pub mod index;
pub mod log;
pub mod os;
pub mod store;
pub mod types;
pub mod upload;
pub mod vault;
pub mod vfs;
