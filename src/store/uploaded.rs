//! The proof of a put.

use std::time::SystemTime;

use super::object::{Body, PutReply};

/// Proof that the store holds exactly the bytes that were put (rule C5). Only this module makes
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    name: String,
    length: u64,
    crc32: u32,
    time: SystemTime,
}

impl Uploaded {
    pub(super) fn new(name: &str, body: &Body, reply: &PutReply) -> Self {
        let (length, crc32) = (body.length(), body.crc32());
        Self { name: name.to_owned(), length, crc32, time: reply.time }
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The CRC-32 of its bytes.
    #[cfg(test)]
    pub fn crc32(&self) -> u32 {
        self.crc32
    }

    /// The store's clock at its answer, to the second; 1970 if it gave none.
    pub fn time(&self) -> SystemTime {
        self.time
    }
}
