//! Single flight: each sealed range is fetched from the bucket once, however many callers wait for it.
//!
//! A *flight* is a task of its own, so a cancelled caller takes nobody with it. It can be found until its bytes are on
//! disk, or until its last holder lets go. As long as it lives, it holds its bytes' share of the memory, so what is in
//! memory is bounded.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::admission::{Admission, Admitted, Priority};
use super::{Error, Result};
use crate::store::Urgency;
use crate::types::KIB;

/// Why a range is fetched. This decides how it waits for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody waits for it.
    Demand,
    /// It lies beside what somebody asked for. It gets memory when nobody else waits for any, within [`PATIENCE`], or not
    /// at all.
    Beside,
    /// Somebody will probably ask for it. It gets memory at once or not at all.
    Ahead,
}

/// A Beside flight is charged at least `1/BESIDE_SHARE` of the demand memory, however small it is. Such flights share half
/// of that memory, so at most `BESIDE_SHARE` / 2 of them run at once.
const BESIDE_SHARE: u64 = 64;
/// How long a Beside flight that nobody waits for may wait for memory before it is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The memory that a flight holds. Its fields are only kept, never read.
#[derive(Debug)]
enum FlightMemory {
    Demand { _admitted: Admitted },
    Ahead { _permit: OwnedSemaphorePermit },
}

/// A range of an object that is on its way, or has come.
#[derive(Debug)]
pub struct Flight {
    object: Arc<str>,
    range: Range<u64>,
    purpose: Purpose,
    outcome: watch::Sender<Option<Result<Bytes>>>,
    memory: Mutex<Option<FlightMemory>>,
    /// Notified when somebody waits for it after all.
    wanted: Notify,
    /// The urgency of its request.
    urgency: Urgency,
    /// Its bytes are known to be wrong: they are not written to the disk.
    forgotten: AtomicBool,
}

impl Flight {
    /// Which bytes of the object it brings.
    pub fn range(&self) -> &Range<u64> {
        &self.range
    }

    /// The outcome, if it has come.
    pub fn ready(&self) -> Option<Result<Bytes>> {
        self.outcome.borrow().clone()
    }

    fn failed(&self) -> bool {
        matches!(*self.outcome.borrow(), Some(Err(_)))
    }

    /// Waits for the bytes. Cancel-safe; bounded by the bucket's deadlines.
    pub async fn wait(&self) -> Result<Bytes> {
        self.urgency.hurry();
        let mut receiver = self.outcome.subscribe();
        // The sender is in `self`, so it cannot close while this waits.
        let outcome = receiver.wait_for(Option::is_some).await.map_err(|_| Error::Stopped)?;
        outcome.clone().unwrap_or(Err(Error::Stopped))
    }

    /// The part `range` (in bytes of the object) of the bytes that came.
    pub fn slice(&self, bytes: &Bytes, range: &Range<u64>) -> Option<Bytes> {
        let from = usize::try_from(range.start.checked_sub(self.range.start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.range.start)?).ok()?;
        (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
    }

    pub(super) fn object(&self) -> &str {
        &self.object
    }

    pub(super) fn purpose(&self) -> Purpose {
        self.purpose
    }

    pub(super) fn urgency(&self) -> &Urgency {
        &self.urgency
    }

    pub(super) fn forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }

    pub(super) fn complete(&self, outcome: Result<Bytes>) {
        self.outcome.send_replace(Some(outcome));
    }
}

/// Leads a flight: its task owns this and fetches for all that wait. If the task dies without an outcome, the waiters
/// learn of it.
#[derive(Debug)]
pub(super) struct Leader(pub(super) Arc<Flight>);

impl Drop for Leader {
    fn drop(&mut self) {
        if self.0.outcome.borrow().is_none() {
            self.0.complete(Err(Error::Stopped));
        }
    }
}

/// All flights of a vault, and the memory that they share.
#[derive(Debug)]
pub(super) struct SingleFlight {
    flights: Mutex<HashMap<Arc<str>, Vec<Weak<Flight>>>>,
    /// How many objects the table had after it was last swept. Locked only while `flights` is.
    live: Mutex<usize>,
    demand: Arc<Admission>,
    ahead: Arc<Semaphore>,
    /// Whether the last attempt to read ahead found no memory.
    refused: AtomicBool,
    /// Bytes of memory for demand and for read-ahead.
    demand_bytes: u64,
    ahead_bytes: u64,
}

/// What [`SingleFlight::join`] returns.
#[derive(Debug)]
pub(super) enum Joined {
    /// It was under way already.
    UnderWay(Arc<Flight>),
    /// It is new: the caller must spawn the task that leads it.
    New(Leader),
}

impl SingleFlight {
    /// `demand` and `ahead` are bytes of memory.
    pub(super) fn new(demand: u64, ahead: u64) -> Self {
        Self {
            flights: Mutex::default(),
            live: Mutex::new(0),
            demand: Admission::new(in_units(demand)),
            ahead: Arc::new(Semaphore::new(in_units(ahead) as usize)),
            refused: AtomicBool::new(false),
            demand_bytes: demand,
            ahead_bytes: ahead,
        }
    }

    /// The flight that brings all of `range`, if there is one that has not failed.
    pub(super) fn find(&self, object: &str, range: &Range<u64>) -> Option<Arc<Flight>> {
        find(self.flights.lock().get(object)?, range)
    }

    /// As `find`, or else a new flight. `None` for an `Ahead` that finds no memory.
    pub(super) fn join(&self, object: &str, range: Range<u64>, purpose: Purpose) -> Option<Joined> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(object).and_then(|list| find(list, &range)) {
            if purpose == Purpose::Demand {
                flight.wanted.notify_one();
                flight.urgency.hurry();
            }
            return Some(Joined::UnderWay(flight));
        }
        let length = range.end.saturating_sub(range.start);
        let memory = match purpose {
            Purpose::Demand | Purpose::Beside => None,
            Purpose::Ahead => {
                let permit = self.ahead.clone().try_acquire_many_owned(in_units(length)).ok();
                self.refused.store(permit.is_none(), Ordering::Relaxed);
                Some(FlightMemory::Ahead { _permit: permit? })
            }
        };
        // Flights do not deregister (a last `Arc` may be dropped under this very lock). Dead ones are swept here, whenever
        // the table has doubled.
        if flights.len() >= 2 * *self.live.lock() + 64 {
            flights.retain(|_, list| {
                list.retain(|flight| flight.strong_count() > 0);
                !list.is_empty()
            });
            *self.live.lock() = flights.len();
        }
        let urgency = match purpose {
            Purpose::Demand => Urgency::default(),
            Purpose::Beside | Purpose::Ahead => Urgency::background(),
        };
        let object: Arc<str> = Arc::from(object);
        let flight = Arc::new(Flight {
            object: object.clone(),
            range,
            purpose,
            outcome: watch::Sender::new(None),
            memory: Mutex::new(memory),
            wanted: Notify::new(),
            urgency,
            forgotten: AtomicBool::new(false),
        });
        let list = flights.entry(object).or_default();
        list.retain(|flight| flight.strong_count() > 0);
        list.push(Arc::downgrade(&flight));
        Some(Joined::New(Leader(flight)))
    }

    /// Waits for a flight's memory. `false`: there was none in time, and nobody waits for the flight.
    pub(super) async fn admit(&self, flight: &Flight) -> bool {
        if flight.purpose == Purpose::Ahead {
            return true;
        }
        let length = flight.range.end - flight.range.start;
        // A flight larger than all the memory takes all of it, so that it gets in at all.
        let units = in_units(length.min(self.demand_bytes));
        let beside = in_units(length.max(self.demand_bytes / BESIDE_SHARE).min(self.demand_bytes));
        let admitted = match flight.purpose {
            Purpose::Beside => tokio::select! {
                biased;
                admitted = self.demand.admit(beside, Priority::Later) => admitted,
                () = flight.wanted.notified() => self.demand.admit(units, Priority::Now).await,
                () = tokio::time::sleep(PATIENCE) => None,
            },
            _ => self.demand.admit(units, Priority::Now).await,
        };
        let is_in = admitted.is_some();
        *flight.memory.lock() =
            admitted.map(|admitted| FlightMemory::Demand { _admitted: admitted });
        is_in
    }

    /// Forgets all flights of this object, because its bytes are wrong: they are not found any more. Callers that already
    /// wait still get the bytes.
    pub(super) fn forget(&self, object: &str) {
        let gone = self.flights.lock().remove(object);
        for flight in gone.iter().flatten().filter_map(Weak::upgrade) {
            flight.forgotten.store(true, Ordering::Relaxed);
        }
    }

    /// Bytes of memory that flights hold.
    pub(super) fn bytes(&self) -> u64 {
        let free = u64::from(self.demand.free()) + self.ahead.available_permits() as u64;
        [self.demand_bytes, self.ahead_bytes]
            .map(|bytes| u64::from(in_units(bytes)) * KIB)
            .iter()
            .sum::<u64>()
            - free * KIB
    }

    /// Whether lack of memory keeps readers from reading ahead at the moment.
    pub(super) fn is_short(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Bytes of memory for read-ahead in all.
    pub(super) fn ahead_capacity(&self) -> u64 {
        self.ahead_bytes
    }
}

fn find(list: &[Weak<Flight>], range: &Range<u64>) -> Option<Arc<Flight>> {
    list.iter().filter_map(Weak::upgrade).find(|flight| {
        flight.range.start <= range.start && range.end <= flight.range.end && !flight.failed()
    })
}

/// Bytes as a number of semaphore units. A unit is a KiB, so that a permit count fits 32 bits.
fn in_units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX >> 3)
}
