//! Limits on the requests to a store, and the storage class and tags of what is put.

use std::fmt::Write;
use std::sync::Arc;

use parking_lot::Mutex;

use super::flow::Flow;
use super::object::PutAs;
use super::slots::Slots;
use crate::types::StoreLimits;

/// The prefix of packs. Everything else is small and must be available at once, so it stays in the
/// bucket's own storage class.
const PACKS: &str = "pack/";

/// The limits of a bucket. All its clients share them.
#[derive(Debug, Default)]
pub(super) struct StorePace {
    pub(super) up: Arc<Flow>,
    pub(super) down: Arc<Flow>,
    pub(super) slots: Arc<Slots>,
    limits: Mutex<StoreLimits>,
}

impl StorePace {
    /// Sets the limits from now on.
    pub(super) fn set(&self, limits: &StoreLimits) {
        let mut now = self.limits.lock();
        now.clone_from(limits);
        self.up.set(&limits.bandwidth_up);
        self.down.set(&limits.bandwidth_down);
        self.slots.set(limits.max_requests);
    }

    pub(super) fn limits(&self) -> StoreLimits {
        self.limits.lock().clone()
    }

    /// How an object of this name is put.
    pub(super) fn put_as(&self, name: &str) -> PutAs {
        let limits = self.limits.lock();
        put_as(&limits, name.starts_with(PACKS))
    }
}

/// How a pack, or another object, is put under these limits.
pub(super) fn put_as(limits: &StoreLimits, is_pack: bool) -> PutAs {
    let class = limits.storage_class.clone().filter(|_| is_pack);
    let tags: Vec<_> = limits.tags.iter().collect();
    let tags: Vec<_> = tags
        .into_iter()
        .map(|(key, value)| format!("{}={}", encoded(key), encoded(value)))
        .collect();
    PutAs { class, tagging: (!tags.is_empty()).then(|| tags.join("&")) }
}

/// Encoded as in a URL's query.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            byte => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_alone_have_a_class_and_everything_has_tags() {
        let pace = StorePace::default();
        assert_eq!(pace.put_as("pack/00/00"), PutAs::default());
        let tags = [("owner", "me & you"), ("a/b", "é=1")];
        let tags = tags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        let limits = StoreLimits {
            storage_class: Some("STANDARD_IA".to_owned()),
            tags: tags.collect(),
            ..StoreLimits::default()
        };
        pace.set(&limits);
        assert_eq!(pace.limits(), limits);
        let tagging = Some("a%2Fb=%C3%A9%3D1&owner=me%20%26%20you".to_owned());
        let class = limits.storage_class.clone();
        assert_eq!(pace.put_as("pack/00/00"), PutAs { class, tagging: tagging.clone() });
        for name in ["superblock/1", "log/1", "checkpoint/1", "page/1", "README"] {
            assert_eq!(
                pace.put_as(name),
                PutAs { class: None, tagging: tagging.clone() },
                "{name}"
            );
        }
    }
}
