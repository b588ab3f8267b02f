//! The map's records about deletion: the retention, the pins, and the horizon (K4).

use std::time::Duration;

use super::{Draft, Result, View};
use crate::records::{Horizon, Key, MetaKey, Pin, Tag, decode_value};

/// How long old states are kept if no record says otherwise.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The largest number of pins. One look-up reads them all.
pub const PINS_MAX: usize = 10_000;

impl View<'_> {
    /// How long old states are kept.
    pub fn retention(&self) -> Result<Duration> {
        let seconds = self.typed::<u64>("meta", &Key::Meta(MetaKey::Retention))?;
        Ok(seconds.map_or(RETENTION, Duration::from_secs))
    }

    /// How far deletion has come; `None`: nothing was ever deleted.
    pub fn horizon(&self) -> Result<Option<Horizon>> {
        self.typed("pin", &Horizon::key())
    }

    /// The named snapshot, if there is one.
    pub fn pin(&self, name: &[u8]) -> Result<Option<Pin>> {
        self.typed("pin", &Pin::key(name)?)
    }

    /// All named snapshots, by name.
    pub fn pins(&self) -> Result<Vec<(Vec<u8>, Pin)>> {
        let rows = self.range(&Tag::Pin.begin(), &Tag::Pin.end(), PINS_MAX + 1)?;
        let named = rows.into_iter().filter(|(key, _)| key.len() > Tag::WIDTH);
        named
            .map(|(key, value)| Ok((key[Tag::WIDTH..].to_vec(), decode_value("pin", &value)?)))
            .collect()
    }
}

impl Draft<'_> {
    /// Sets how long old states are kept, in whole seconds.
    pub fn put_retention(&mut self, retention: Duration) {
        self.put(&Key::Meta(MetaKey::Retention), &retention.as_secs());
    }

    /// Puts how far deletion has come.
    pub fn put_horizon(&mut self, horizon: &Horizon) {
        self.put(&Horizon::key(), horizon);
    }

    /// Puts a named snapshot.
    ///
    /// # Errors
    /// If `name` cannot be the name of a pin.
    pub fn put_pin(&mut self, name: &[u8], pin: &Pin) -> Result<()> {
        self.put(&Pin::key(name)?, pin);
        Ok(())
    }

    /// Deletes a named snapshot.
    ///
    /// # Errors
    /// If `name` cannot be the name of a pin.
    pub fn delete_pin(&mut self, name: &[u8]) -> Result<()> {
        self.delete(&Pin::key(name)?);
        Ok(())
    }
}
