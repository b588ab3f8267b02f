//! Whether it makes sense to wait for the bucket, judged by requests that got no answer for a whole deadline.
//!
//! If nothing else came meanwhile either, the store is down. That holds for all objects, until anything comes. If other
//! requests were answered, only this object hangs. That holds for it alone, until it comes.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::{Doubt, Patience, Terms};

/// The most hanging objects to remember; beyond that the table starts anew.
const HANGING_MAX: usize = 1000;

/// What is known about waiting for one bucket.
#[derive(Debug)]
pub(super) struct Doubts {
    store: Patience,
    terms: Terms,
    hanging: Mutex<HashMap<Box<str>, Doubt>>,
}

impl Doubts {
    /// For requests with this deadline.
    pub(super) fn of(deadline: Duration) -> Self {
        let (store, terms) = (Patience::of(deadline), Terms::of(deadline));
        Self { store, terms, hanging: Mutex::default() }
    }

    /// Until when a caller that asks for this object now should wait; `None`: for a whole deadline. `answers` counts what
    /// came from the store.
    pub(super) fn until(&self, object: &str, answers: u64) -> Option<Instant> {
        let store = self.store.until(answers);
        store.or_else(|| Some(self.hanging.lock().get_mut(object)?.until(&self.terms)))
    }

    /// Notes that nothing at all came for a whole deadline.
    pub(super) fn nothing_came(&self, answers: u64) {
        self.store.in_vain(answers);
    }

    /// Notes that this object did not come for a whole deadline, in which the count of answers went from `before` to
    /// `now`.
    pub(super) fn did_not_come(&self, object: &str, before: u64, now: u64) {
        if before == now {
            return self.nothing_came(now);
        }
        let mut hanging = self.hanging.lock();
        if hanging.len() >= HANGING_MAX {
            hanging.clear();
        }
        hanging.entry(object.into()).or_insert_with(|| Doubt::new(&self.terms));
    }

    /// Notes that there was an answer about this object.
    pub(super) fn came(&self, object: &str) {
        self.hanging.lock().remove(object);
    }
}
