//! One suite that every store passes: what the rules assume of the medium, and what the trait
//! promises.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;

use super::error::{Error, Result};
use super::object::{Begin, Body, Listed, Put, Store};
use super::probe::random;
use crate::types::noise;
use crate::types::with_causes;

/// Concurrent puts of one key.
const RACERS: usize = 8;

/// What the suite found.
#[derive(Debug, Default)]
pub struct SuiteReport {
    /// Each check's name, and what was wrong with it.
    pub checks: Vec<(&'static str, std::result::Result<(), String>)>,
}

impl SuiteReport {
    /// Panics with all failures.
    pub fn assert_passed(&self) {
        let failed: Vec<_> = self.checks.iter().filter(|(_, result)| result.is_err()).collect();
        assert!(!self.checks.is_empty() && failed.is_empty(), "{failed:#?}");
    }

    /// Whether this check passed.
    pub fn passed(&self, name: &str) -> bool {
        self.checks.iter().any(|(check, result)| *check == name && result.is_ok())
    }

    async fn check(&mut self, name: &'static str, check: impl Future<Output = CheckResult>) {
        self.checks.push((name, check.await));
    }
}

type CheckResult = std::result::Result<(), String>;

/// Runs every check below a prefix (empty, or ending with a slash), and deletes what it put.
pub async fn run(store: &dyn Store, prefix: &str) -> SuiteReport {
    let suite = Suite { store, prefix: format!("{prefix}conformance-{:016x}/", random()) };
    let mut report = SuiteReport::default();
    report.check("put, get, head", suite.round_trip()).await;
    report.check("16 MiB", suite.large()).await;
    report.check("ranges", suite.ranges()).await;
    report.check("absent", suite.absent()).await;
    report.check("conditional put", suite.conditional()).await;
    report.check("one winner of a race", suite.race()).await;
    report.check("unconditional put", suite.replace()).await;
    report.check("listing", suite.listing()).await;
    report.check("pages of a listing", suite.pages()).await;
    report.check("list after write", suite.list_after_write()).await;
    report.check("the clock goes forward", suite.clock()).await;
    report.check("delete", suite.deletion()).await;
    report
}

struct Suite<'a> {
    store: &'a dyn Store,
    prefix: String,
}

fn said<T>(result: Result<T>) -> std::result::Result<T, String> {
    result.map_err(|error| with_causes(&error))
}

fn expect(holds: bool, words: impl FnOnce() -> String) -> CheckResult {
    if holds { Ok(()) } else { Err(words()) }
}

impl Suite<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn put(&self, name: &str, bytes: impl Into<Bytes>) -> CheckResult {
        let body = Body::from(bytes);
        said(self.store.put(&self.name(name), &body, Put::IfAbsent).await).map(drop)
    }

    async fn sweep(&self, names: &[String]) -> CheckResult {
        said(self.store.delete(names).await)
    }

    async fn round_trip(&self) -> CheckResult {
        for (length, name) in [(0, "empty"), (1, "one"), (70_000, "some")] {
            let name = self.name(name);
            let body = Body::from(noise(1, length));
            let reply = said(self.store.put(&name, &body, Put::IfAbsent).await)?;
            if let Some(crc32) = reply.crc32 {
                expect(crc32 == body.crc32(), || format!("CRC-32 {crc32:08x} of {body:?}"))?;
            }
            let got = said(self.store.get(&name, None).await)?;
            expect(got.bytes == body.bytes(), || format!("{got:?} of {body:?}"))?;
            expect(got.object_length == body.length(), || format!("{got:?} of {body:?}"))?;
            let head = said(self.store.head(&name).await)?;
            expect(head.length == body.length(), || format!("{head:?} of {body:?}"))?;
            let crc32 = head.crc32.unwrap_or(body.crc32());
            expect(crc32 == body.crc32(), || format!("{head:?} of {body:?}"))?;
            self.sweep(&[name]).await?;
        }
        Ok(())
    }

    async fn large(&self) -> CheckResult {
        let name = self.name("large");
        let body = Body::from(noise(2, 16 << 20));
        said(self.store.put(&name, &body, Put::IfAbsent).await)?;
        let got = said(self.store.get(&name, None).await)?;
        expect(got.bytes == body.bytes(), || format!("{got:?} of {body:?}"))?;
        self.sweep(&[name]).await
    }

    #[allow(clippy::cast_possible_truncation, reason = "300,000 at most")]
    async fn ranges(&self) -> CheckResult {
        let name = self.name("ranges");
        let bytes = Bytes::from(noise(3, 300_000));
        self.put("ranges", bytes.clone()).await?;
        for range in [0..1, 0..300_000, 299_999..300_000, 12_345..145_678, 65_536..65_537] {
            let got = said(self.store.get(&name, Some(range.clone())).await)?;
            let expected = bytes.slice(range.start as usize..range.end as usize);
            expect(got.bytes == expected, || format!("{got:?} of {range:?}"))?;
            expect(got.object_length == 300_000, || format!("{got:?} of {range:?}"))?;
        }
        // Beyond the end: an error, or the bytes that exist; never other bytes.
        if let Ok(got) = self.store.get(&name, Some(299_000..301_000)).await {
            expect(got.bytes == bytes.slice(299_000..), || format!("{got:?} at the end"))?;
        }
        if let Ok(got) = self.store.get(&name, Some(300_001..300_100)).await {
            expect(got.bytes.is_empty(), || format!("{got:?} beyond the end"))?;
        }
        self.sweep(&[name]).await
    }

    async fn absent(&self) -> CheckResult {
        let name = self.name("absent");
        let got = self.store.get(&name, None).await;
        expect(matches!(got, Err(Error::NotFound { .. })), || format!("get: {got:?}"))?;
        let got = self.store.get(&name, Some(0..10)).await;
        expect(matches!(got, Err(Error::NotFound { .. })), || format!("range: {got:?}"))?;
        let head = self.store.head(&name).await;
        expect(matches!(head, Err(Error::NotFound { .. })), || format!("head: {head:?}"))
    }

    async fn conditional(&self) -> CheckResult {
        let name = self.name("conditional");
        self.put("conditional", "first").await?;
        for second in ["second", "first"] {
            let put = self.store.put(&name, &Body::from(second), Put::IfAbsent).await;
            expect(matches!(put, Err(Error::Exists { .. })), || format!("{second}: {put:?}"))?;
        }
        let got = said(self.store.get(&name, None).await)?;
        expect(got.bytes == "first", || "the second put replaced the first".to_owned())?;
        // A deleted name is free again.
        self.sweep(std::slice::from_ref(&name)).await?;
        self.put("conditional", "third").await?;
        self.sweep(&[name]).await
    }

    async fn race(&self) -> CheckResult {
        let name = self.name("race");
        let bodies: Vec<_> = (0..RACERS).map(|i| Body::from(format!("racer {i}"))).collect();
        let puts = bodies.iter().map(|body| self.store.put(&name, body, Put::IfAbsent));
        let puts = join_all(puts).await;
        let mut winners = Vec::new();
        for (body, put) in bodies.iter().zip(puts) {
            match put {
                Ok(_) => winners.push(body),
                Err(Error::Exists { .. }) => {}
                Err(error) => return Err(with_causes(&error)),
            }
        }
        expect(winners.len() == 1, || format!("{} puts won", winners.len()))?;
        let got = said(self.store.get(&name, None).await)?;
        expect(got.bytes == winners[0].bytes(), || "a loser's bytes are there".to_owned())?;
        self.sweep(&[name]).await
    }

    async fn replace(&self) -> CheckResult {
        let name = self.name("replace");
        for text in ["first", "the second"] {
            said(self.store.put(&name, &Body::from(text), Put::Always).await)?;
            let got = said(self.store.get(&name, None).await)?;
            expect(got.bytes == text, || format!("{got:?} instead of {text}"))?;
        }
        self.sweep(&[name]).await
    }

    /// All pages of a listing, without this suite's prefix.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> std::result::Result<(Vec<Listed>, usize), String> {
        let prefix = self.name(prefix);
        let mut from = after.map_or(Begin::First, |after| Begin::After(self.name(after)));
        let (mut found, mut pages) = (Vec::new(), 0);
        loop {
            let page = said(self.store.list(&prefix, &from).await)?;
            pages += 1;
            for mut object in page.objects {
                expect(object.name.starts_with(&prefix), || format!("{object:?} is listed"))?;
                object.name.drain(..self.prefix.len());
                found.push(object);
            }
            match page.more {
                Some(more) => from = more,
                None => return Ok((found, pages)),
            }
        }
    }

    async fn listing(&self) -> CheckResult {
        let names = [
            "log/0000000000000001",
            "log/0000000000000002",
            "log/000000000000000a",
            "log2",
            "logs/x",
            "pack/00/aa",
            "pack/00/ab",
            "pack/01/00",
            "pack/ff/00",
            "superblock/1",
        ];
        for (length, name) in names.iter().enumerate() {
            self.put(name, noise(5, length * 10)).await?;
        }
        let cases: [(&str, Option<&str>, &[&str]); 8] = [
            ("", None, &names),
            ("log/", None, &names[..3]),
            ("log/", Some("log/0000000000000001"), &names[1..3]),
            ("log/", Some("log/0000000000000003"), &names[2..3]),
            ("log/", Some("log/ffffffffffffffff"), &[]),
            ("log", None, &names[..5]),
            ("pack/00/", None, &names[5..7]),
            ("nothing/", None, &[]),
        ];
        for (prefix, after, expected) in cases {
            let (found, _) = self.list(prefix, after).await?;
            let found: Vec<_> = found.iter().map(|object| object.name.as_str()).collect();
            expect(found == expected, || format!("{prefix:?} after {after:?}: {found:?}"))?;
        }
        let (found, _) = self.list("", None).await?;
        for (i, object) in found.iter().enumerate() {
            expect(object.length == i as u64 * 10, || format!("{object:?}"))?;
        }
        let names: Vec<_> = names.iter().map(|name| self.name(name)).collect();
        self.sweep(&names).await?;
        let (found, _) = self.list("", None).await?;
        expect(found.is_empty(), || format!("{found:?} is left"))
    }

    async fn pages(&self) -> CheckResult {
        let names: BTreeSet<_> = (0..1_050).map(|i| format!("pages/{:016x}", i * 7)).collect();
        let all: Vec<_> = names.iter().collect();
        for some in all.chunks(32) {
            for put in join_all(some.iter().map(|name| self.put(name, "x"))).await {
                put?;
            }
        }
        let (found, pages) = self.list("pages/", None).await?;
        let in_order = found.iter().map(|object| &object.name).eq(names.iter());
        expect(in_order, || format!("{} objects listed of 1,050, or out of order", found.len()))?;
        expect(pages > 1, || "all in one page".to_owned())?;
        let names: Vec<_> = names.iter().map(|name| self.name(name)).collect();
        for some in names.chunks(1000) {
            self.sweep(some).await?;
        }
        let (found, _) = self.list("pages/", None).await?;
        expect(found.is_empty(), || format!("{} objects are left", found.len()))
    }

    async fn list_after_write(&self) -> CheckResult {
        for i in 0..10 {
            let name = format!("fresh/{i}");
            self.put(&name, "x").await?;
            let (found, _) = self.list("fresh/", None).await?;
            expect(found.iter().any(|object| object.name == name), || {
                format!("{name} is not listed")
            })?;
            let full = self.name(&name);
            self.sweep(std::slice::from_ref(&full)).await?;
            let got = self.store.get(&full, None).await;
            expect(matches!(got, Err(Error::NotFound { .. })), || format!("deleted: {got:?}"))?;
        }
        Ok(())
    }

    async fn clock(&self) -> CheckResult {
        let name = self.name("clock");
        let mut last = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        for _ in 0..3 {
            let begun = Instant::now();
            let put = said(self.store.put(&name, &Body::from("x"), Put::Always).await)?;
            let took = begun.elapsed();
            let got = said(self.store.get(&name, None).await)?;
            let head = said(self.store.head(&name).await)?;
            let page = said(self.store.list(&name, &Begin::First).await)?;
            for time in [put.time, got.time, head.time, page.time] {
                expect(time >= last, || format!("{time:?} after {last:?}"))?;
                last = time;
            }
            // A listing may round to the second.
            let apart = |a: SystemTime, b: SystemTime| {
                a.duration_since(b).or_else(|_| b.duration_since(a)).unwrap_or_default()
            };
            let off = apart(head.modified, put.time);
            expect(off < Duration::from_secs(5) + took, || {
                format!("put {off:?} from its own time")
            })?;
        }
        self.sweep(&[name]).await
    }

    async fn deletion(&self) -> CheckResult {
        let names = [self.name("gone/1"), self.name("gone/2"), self.name("gone/never")];
        self.put("gone/1", "x").await?;
        self.put("gone/2", "x").await?;
        self.sweep(&names).await?;
        self.sweep(&names[..1]).await?;
        let (found, _) = self.list("gone/", None).await?;
        expect(found.is_empty(), || format!("{found:?} is left"))
    }
}
