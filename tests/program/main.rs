//! The program as people and other programs use it: real mounts, a real S3 server, real tools. It is one binary, since
//! linking takes longer than most of these tests; nextest runs each test in a process of its own.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]
#![allow(unreachable_pub, reason = "a module of tests is public to the others")]
#![allow(clippy::unused_self, reason = "what a bucket is asked for may depend on it later")]
#![allow(clippy::zombie_processes, reason = "the server outlives the test that started it")]

mod attacks;
mod cli;
mod counted;
mod disk;
mod ending;
mod files;
mod following;
mod forged_store;
mod gateway;
mod golden;
mod guided;
mod half_done;
mod joining;
mod keys;
mod limits;
mod looking_back;
mod machine;
mod network;
mod nothing_replaced;
mod old_states;
mod page;
mod panics;
mod read_vault;
mod secrets_in_memory;
mod semantics;
mod serve;
mod serve_sockets;
mod service;
mod set_id;
mod store;
mod strange;
mod superblock;
mod support;
mod system;
mod tree;
