//! A store that fails by script, for the tests of all modules.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::error::{Error, Result};
use super::object::{Begin, Body, Fetched, HeadReply, Listing, Put, PutReply, Store};

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// PUT.
    Put,
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// A page of a listing.
    List,
    /// DELETE.
    Delete,
}

/// A request that reached the faulty store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRequest {
    /// Its kind.
    pub verb: Verb,
    /// The object's name; for a listing the prefix, for a DELETE the first name.
    pub name: String,
}

/// Which requests a fault applies to.
#[derive(Clone, Debug)]
pub struct On {
    /// `None`: requests of every kind.
    verb: Option<Verb>,
    prefix: String,
    skip: u32,
    times: u32,
}

impl On {
    /// The next request of this kind for a name with this prefix (which includes the bucket's prefix), once.
    pub fn next(verb: Verb, prefix: &str) -> Self {
        Self { verb: Some(verb), ..Self::any(prefix) }
    }

    /// The next request of any kind for a name with this prefix, once.
    pub fn any(prefix: &str) -> Self {
        Self { verb: None, prefix: prefix.to_owned(), skip: 0, times: 1 }
    }

    /// Lets this many requests pass first.
    #[must_use]
    pub fn after(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// Applies this many times in a row.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// Applies from then on for ever.
    #[must_use]
    pub fn always(self) -> Self {
        Self { times: u32::MAX, ..self }
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Not carried out; this error is returned.
    Fails(Error),
    /// Not carried out; the connection breaks.
    Breaks,
    /// Carried out, but the reply is lost.
    LosesReply,
    /// Nothing happens, for ever.
    Stalls,
    /// Carried out after this time.
    Delays(Duration),
    /// A put whose bytes move in this many parts, each after this time; then it is carried out.
    Trickles(u32, Duration),
    /// A put whose bytes all move; then the connection breaks, and it is not carried out.
    Wastes,
    /// A put that is answered with 200, but keeps half; the checksum in the answer is that of the half.
    KeepsHalf,
    /// A put that is answered with 200, but keeps nothing, and returns no checksum.
    KeepsNothing,
    /// A put that keeps half, but returns the checksum of the whole: a lie.
    LiesAboutHalf,
    /// A put that keeps other bytes of the same length, and returns no checksum.
    KeepsOther,
    /// A put or a head that returns no checksum.
    TellsNothing,
    /// A get with one bit changed.
    FlipsBit,
    /// A get whose second half is missing.
    CutsOff,
    /// A page of a listing that lacks its last name: the newest object is not listed yet.
    ListsLate,
    /// Carried out; the time in the answer is this much older.
    Older(Duration),
    /// This fault applies, and the process that made the request ends here: it reaches nothing any more
    /// ([`Faulty::when_it_ends`]).
    EndsWith(Box<Fault>),
}

/// A store that fails by script. The first fault in the script that matches a request applies to it.
pub struct Faulty {
    inner: Arc<dyn Store>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    script: Vec<(On, Fault)>,
    gone: bool,
    requests: Vec<StoreRequest>,
    ending: Option<EndTold>,
}

/// Called when the process ends.
type EndTold = Arc<dyn Fn() + Send + Sync>;

impl Faulty {
    /// A store that behaves like `inner` until told otherwise.
    pub fn over(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { inner, state: Mutex::default() })
    }

    /// Adds a fault to the script.
    pub fn inject(&self, on: On, fault: Fault) {
        self.state.lock().script.push((on, fault));
    }

    /// Forgets the script.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.script.clear();
        state.gone = false;
    }

    /// Sets what is called when the process ends at a request ([`Fault::EndsWith`]).
    pub fn when_it_ends(&self, ending: impl Fn() + Send + Sync + 'static) {
        self.state.lock().ending = Some(Arc::new(ending));
    }

    /// From now on (until [`Faulty::heal`]) the store cannot be reached.
    pub fn disappear(&self) {
        self.state.lock().gone = true;
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<StoreRequest> {
        std::mem::take(&mut self.state.lock().requests)
    }

    fn arrives(&self, verb: Verb, name: &str) -> Option<Fault> {
        let mut state = self.state.lock();
        state.requests.push(StoreRequest { verb, name: name.to_owned() });
        if state.gone {
            return Some(Fault::Breaks);
        }
        let mut due = None;
        for (at, (on, fault)) in state.script.iter_mut().enumerate() {
            if on.verb.is_some_and(|only| only != verb) || !name.starts_with(&on.prefix) {
                continue;
            }
            if on.skip > 0 {
                on.skip -= 1;
                continue;
            }
            if on.times != u32::MAX {
                on.times -= 1;
            }
            due = Some((at, on.times == 0, fault.clone()));
            break;
        }
        let (at, spent, fault) = due?;
        if spent {
            state.script.remove(at);
        }
        let Fault::EndsWith(last) = fault else { return Some(fault) };
        state.gone = true;
        let ending = state.ending.clone();
        drop(state);
        if let Some(ending) = ending {
            ending();
        }
        Some(*last)
    }

    /// The faults that do not depend on the kind of request.
    async fn suffer<T>(
        fault: Option<&Fault>,
        name: &str,
        carry_out: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match fault {
            Some(Fault::Fails(error)) => Err(error.clone()),
            Some(Fault::Breaks) => Err(broken(name)),
            Some(Fault::LosesReply) => {
                carry_out.await?;
                Err(broken(name))
            }
            Some(Fault::Stalls) => std::future::pending().await,
            Some(Fault::Delays(by)) => {
                tokio::time::sleep(*by).await;
                carry_out.await
            }
            _ => carry_out.await,
        }
    }
}

fn broken(name: &str) -> Error {
    let cause = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    Error::Unreachable { object: name.to_owned(), cause: Arc::new(cause) }
}

fn older(time: &mut SystemTime, fault: Option<&Fault>) {
    if let Some(Fault::Older(by)) = fault {
        *time = time.checked_sub(*by).unwrap_or(SystemTime::UNIX_EPOCH);
    }
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut changed = bytes.to_vec();
    let middle = changed.len() / 2;
    if let Some(byte) = changed.get_mut(middle) {
        *byte ^= 1;
    }
    changed.into()
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?})", self.inner)
    }
}

#[async_trait]
impl Store for Faulty {
    async fn put(&self, name: &str, body: &Body, condition: Put) -> Result<PutReply> {
        let fault = self.arrives(Verb::Put, name);
        match &fault {
            Some(Fault::Trickles(parts, by)) => {
                for _ in 0..*parts {
                    tokio::time::sleep(*by).await;
                    body.moved().add(body.length() / u64::from(*parts));
                }
            }
            Some(Fault::Wastes) => {
                body.moved().add(body.length());
                return Err(broken(name));
            }
            _ => {}
        }
        let kept = match &fault {
            Some(Fault::KeepsHalf | Fault::LiesAboutHalf) => {
                body.bytes().slice(..body.bytes().len() / 2).into()
            }
            Some(Fault::KeepsOther) => flipped(body.bytes()).into(),
            _ => body.clone(),
        };
        if matches!(fault, Some(Fault::KeepsNothing)) {
            let time = self.inner.list("", &Begin::First).await?.time;
            return Ok(PutReply { time, crc32: None, etag: None });
        }
        let put = self.inner.put(name, &kept, condition);
        let mut reply = Self::suffer(fault.as_ref(), name, put).await?;
        match &fault {
            Some(Fault::LiesAboutHalf) => reply.crc32 = Some(body.crc32()),
            Some(Fault::KeepsOther | Fault::TellsNothing) => {
                (reply.crc32, reply.etag) = (None, None);
            }
            _ => {}
        }
        older(&mut reply.time, fault.as_ref());
        Ok(reply)
    }

    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Fetched> {
        let fault = self.arrives(Verb::Get, name);
        let get = self.inner.get(name, range);
        let mut fetched = Self::suffer(fault.as_ref(), name, get).await?;
        match &fault {
            Some(Fault::FlipsBit) => fetched.bytes = flipped(&fetched.bytes),
            Some(Fault::CutsOff) => fetched.bytes.truncate(fetched.bytes.len() / 2),
            _ => older(&mut fetched.time, fault.as_ref()),
        }
        Ok(fetched)
    }

    async fn head(&self, name: &str) -> Result<HeadReply> {
        let fault = self.arrives(Verb::Head, name);
        let mut head = Self::suffer(fault.as_ref(), name, self.inner.head(name)).await?;
        if matches!(fault, Some(Fault::TellsNothing)) {
            (head.crc32, head.etag) = (None, None);
        }
        older(&mut head.time, fault.as_ref());
        Ok(head)
    }

    async fn list(&self, prefix: &str, begin: &Begin) -> Result<Listing> {
        let fault = self.arrives(Verb::List, prefix);
        let list = self.inner.list(prefix, begin);
        let mut page = Self::suffer(fault.as_ref(), prefix, list).await?;
        if matches!(fault, Some(Fault::ListsLate)) {
            page.objects.pop();
        }
        older(&mut page.time, fault.as_ref());
        Ok(page)
    }

    async fn delete(&self, names: &[String]) -> Result<()> {
        let name = names.first().map_or("", String::as_str);
        let fault = self.arrives(Verb::Delete, name);
        Self::suffer(fault.as_ref(), name, self.inner.delete(names)).await
    }
}
