//! Tests of the whole room: real journal and committer, over a store and a disk that fail.

mod crashes;
mod dropped;
mod durability;
mod full;
mod powercut;
mod rig;
mod sending;
mod zeros;
