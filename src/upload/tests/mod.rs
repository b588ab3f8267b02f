//! Tests of the whole room: real journal and committer, over a store and a disk that fail.

mod rig;
mod sending;
