//! Random changes, snapshots, checkpoints and deletions that break off anywhere: after each deletion every promised state
//! (the current one, each snapshot, each commit within the retention) reads back byte for byte (K4, K5).

use std::ops::ControlFlow;
use std::task::Poll;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::reclaim::{Pace, ReclaimPlan};
use crate::store::{Fault, On, Verb};
use crate::types::{CommitNo, StateAt};
use crate::vault::{Restored, Restoring};

const RETENTION: Duration = Duration::from_secs(100);
/// How many old states are checked after a deletion, besides snapshots.
const LOOKED_AT: usize = 4;

type Tree = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Debug)]
enum Deed {
    Write {
        name: u8,
        seed: usize,
        length: usize,
    },
    Unlink(u8),
    /// An open file with unpublished writes.
    Hold(u8, usize),
    Checkpoint,
    Wait(u64),
    Snapshot(u8),
    Forget(u8),
    /// Restores a file from some state, this many polls after a deletion began.
    Restore(u8, u8, usize),
    /// By hand, or as in the background, where nothing is published first.
    Gc(bool),
    /// Given up after this many polls, then kill -9.
    GcIsKilled(usize),
    /// The store loses replies to deletions, or breaks before it deletes.
    GcFails(bool),
    Kill,
    /// A clean unmount here, and another machine goes on.
    Elsewhere,
    /// Another machine takes over from one that is gone.
    TakeOver,
}

fn deed() -> impl Strategy<Value = Deed> {
    let length =
        prop_oneof![3 => 0..6000usize, 2 => 20_000..90_000usize, 1 => 1_100_000..1_300_000usize];
    prop_oneof![
        8 => (0..6u8, 0..99usize, length)
            .prop_map(|(name, seed, length)| Deed::Write { name, seed, length }),
        4 => (0..6u8).prop_map(Deed::Unlink),
        1 => (6..8u8, 0..99usize).prop_map(|(name, seed)| Deed::Hold(name, seed)),
        2 => Just(Deed::Checkpoint),
        6 => prop_oneof![0..4u64, 20..130u64].prop_map(Deed::Wait),
        2 => (0..3u8).prop_map(Deed::Snapshot),
        1 => (0..3u8).prop_map(Deed::Forget),
        4 => (0..6u8, 0..99u8, prop_oneof![Just(0), 1..80usize])
            .prop_map(|(name, from, polls)| Deed::Restore(name, from, polls)),
        6 => any::<bool>().prop_map(Deed::Gc),
        2 => (1..60usize).prop_map(Deed::GcIsKilled),
        1 => any::<bool>().prop_map(Deed::GcFails),
        1 => Just(Deed::Kill),
        1 => Just(Deed::Elsewhere),
        1 => Just(Deed::TakeOver),
    ]
}

/// A past state, and when it ended.
struct Was {
    tree: Tree,
    ended: Option<SystemTime>,
}

/// What was done so far, and what must be there because of it.
struct ReclaimedLife {
    world: World,
    vault: Option<Arc<Vault>>,
    at: &'static str,
    now: SystemTime,
    tree: Tree,
    states: BTreeMap<CommitNo, Was>,
    snapshots: BTreeMap<String, Tree>,
    /// Open files, and their content once they are closed.
    held: Vec<(HandleId, String, Vec<u8>)>,
}

fn name(number: u8) -> String {
    format!("file-{number}")
}

impl ReclaimedLife {
    async fn new() -> Self {
        let world = World::new().await;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        world.store.set_time(now);
        let vault = world.open("a").await;
        vault.set_retention(RETENTION).await.unwrap();
        let (tree, states, snapshots) = <_>::default();
        let vault = Some(vault);
        Self { world, vault, at: "a", now, tree, states, snapshots, held: Vec::new() }
    }

    fn vault(&self) -> &Arc<Vault> {
        self.vault.as_ref().unwrap()
    }

    fn wait(&mut self, seconds: u64) {
        // If there were commits since the last record, or changes are still unsent, that state has ended by now. Read in
        // this order, a commit that is confirmed in between is seen by one of the two.
        let unsent = self.vault().progress().unsent_changes;
        let (head, now) = (self.vault().status().head, self.now);
        let is_over = |number: CommitNo| number < head || unsent > 0;
        for (number, was) in &mut self.states {
            if is_over(*number) {
                was.ended.get_or_insert(now);
            }
        }
        self.now += Duration::from_secs(seconds);
        self.world.store.set_time(self.now);
    }

    /// Sends everything, and records the current state.
    async fn record(&mut self) {
        self.close_files().await;
        self.vault().sync(LONG).await.unwrap();
        let head = self.vault().status().head;
        let now = self.now;
        for (_, was) in self.states.range_mut(..head) {
            was.ended.get_or_insert(now);
        }
        self.states.insert(head, Was { tree: self.tree.clone(), ended: None });
    }

    async fn open(&mut self, at: &'static str, take_over: bool) {
        let who = Machines { take_over, ..machine(at) };
        self.vault = Some(self.world.try_open(who).await.unwrap());
        self.at = at;
        self.record().await;
    }

    /// kill -9: the names of open files are there, and what was not published is not.
    async fn end(&mut self) {
        for (_, name, _) in std::mem::take(&mut self.held) {
            self.tree.insert(name, Vec::new());
        }
        kill(self.vault.take().unwrap()).await;
    }

    async fn close_files(&mut self) {
        for (handle, name, data) in std::mem::take(&mut self.held) {
            self.vault().vfs().flush(handle).await.unwrap();
            self.vault().vfs().release(handle).await.unwrap();
            self.tree.insert(name, data);
        }
    }

    fn other(&self) -> &'static str {
        if self.at == "a" { "b" } else { "a" }
    }

    async fn hold(&mut self, number: u8, seed: usize) {
        let (name, data) = (name(number), bytes(seed, 50_000));
        if self.held.iter().any(|(_, other, _)| *other == name) {
            return;
        }
        let vfs = self.vault().vfs();
        let flags = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
        let made = vfs.create(&USER, InodeNo::ROOT, name.as_bytes(), 0o644, flags).await;
        let handle = made.unwrap().1;
        vfs.write(handle, WriteAt::Offset(0), &data).await.unwrap();
        // Whatever is done next publishes it, except a background deletion.
        self.held.push((handle, name, data));
    }

    async fn snapshot(&mut self, number: u8) {
        self.close_files().await;
        let name = format!("s{number}");
        let made = self.vault().make_snapshot(name.as_bytes(), None).await;
        assert_ne!(made.is_ok(), self.snapshots.contains_key(&name), "{made:?}");
        self.snapshots.entry(name).or_insert_with(|| self.tree.clone());
    }

    /// A snapshot or a past state, and whether it is promised.
    fn some_state(&self, from: u8) -> Option<(StateAt, Tree, bool)> {
        let snapshots = self.snapshots.iter();
        let named = snapshots.map(|(name, tree)| (StateAt::Named(name.clone(), None), tree, true));
        let states = self.states.iter();
        let states =
            states.map(|(n, was)| (StateAt::Commit(n.0), &was.tree, self.is_promised(was)));
        let all: Vec<_> = named.chain(states).collect();
        let (at, tree, promised) = all.get(usize::from(from) * 7 % all.len().max(1))?;
        Some((at.clone(), (*tree).clone(), *promised))
    }

    /// Restores a file after this many polls of a deletion, which then goes on. What the restoration saw before it decided
    /// may be gone by then.
    async fn restore(&mut self, number: u8, from: u8, polls: usize) {
        let Some((at, was, promised)) = self.some_state(from) else { return };
        let (vault, name) = (self.vault().clone(), name(number));
        let mut run = Box::pin(vault.reclaim(false, &|_| {}));
        let mut left = polls;
        let ended = std::future::poll_fn(|context| {
            let next = if left > 0 { run.as_mut().poll(context) } else { Poll::Pending };
            left = left.saturating_sub(1);
            match next {
                Poll::Pending if left > 0 => Poll::Pending,
                next => Poll::Ready(next.is_ready()),
            }
        });
        let ended = ended.await;
        let what = Restoring { path: vec![name.clone().into_bytes()], at: Some(at), to: None };
        let mut tell = |_: &Restored| ControlFlow::Continue(());
        let restored = vault.restore(&what, &mut tell);
        let done = if ended || polls == 0 {
            restored.await
        } else {
            let (run, done) = tokio::join!(run, restored);
            drop(run.unwrap());
            done
        };
        match (was.get(&name), done) {
            (Some(data), Ok(done)) => {
                assert!(done.shared == 0 || data.len() > 1 << 20);
                self.tree.insert(name, data.clone());
            }
            (None, done) => assert!(done.is_err()),
            (Some(_), Err(error)) => assert!(!promised, "{error}"),
        }
    }

    /// Gives a deletion up after this many polls, and kills the process.
    async fn break_off(&mut self, polls: usize) {
        let vault = self.vault().clone();
        let mut run = Box::pin(vault.reclaim(false, &|_| {}));
        let mut left = polls;
        std::future::poll_fn(|context| {
            left = left.saturating_sub(1);
            match run.as_mut().poll(context) {
                Poll::Pending if left > 0 => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
        .await;
        drop(run);
        drop(vault);
        self.end().await;
    }

    async fn gc(&mut self, by_hand: bool) {
        if by_hand {
            self.close_files().await;
            self.vault().reclaim(false, &|_| {}).await.unwrap();
        } else {
            let plan = ReclaimPlan { dry_run: false, pace: Pace::Background };
            let writer = self.vault().writer.as_ref().unwrap();
            writer.reclaiming.run(plan, &|_| {}).await.unwrap();
            self.close_files().await;
        }
    }

    async fn fail(&mut self, loses_reply: bool) {
        let fault = if loses_reply { Fault::LosesReply } else { Fault::Breaks };
        self.world.faulty.inject(On::next(Verb::Delete, "").times(u32::MAX), fault);
        let report = self.vault().reclaim(false, &|_| {}).await.unwrap();
        self.world.faulty.heal();
        drop(report);
    }

    async fn shows(&self, at: StateAt, tree: &Tree, what: &str) {
        let who = Machines { at: Some(&at), ..machine("viewer") };
        let viewer =
            self.world.try_open(who).await.unwrap_or_else(|e| panic!("{what} {at:?}: {e}"));
        assert_eq!(super::tree(&viewer).await, *tree, "{what} {at:?}");
        viewer.close(LONG).await.unwrap();
    }

    fn is_promised(&self, was: &Was) -> bool {
        was.ended.is_none_or(|ended| self.now.duration_since(ended).unwrap() <= RETENTION)
    }

    /// Checks that every promise is kept.
    async fn look(&mut self) {
        self.record().await;
        assert_eq!(super::tree(self.vault()).await, self.tree, "now");
        for (name, tree) in &self.snapshots {
            self.shows(StateAt::Named(name.clone(), None), tree, "snapshot").await;
        }
        let states = self.states.iter();
        let promised: Vec<_> = states.filter(|(_, was)| self.is_promised(was)).collect();
        let step = promised.len().div_ceil(LOOKED_AT).max(1);
        for (number, was) in promised.into_iter().step_by(step) {
            self.shows(StateAt::Commit(number.0), &was.tree, "commit").await;
        }
    }

    async fn apply(&mut self, deed: Deed) {
        match deed {
            Deed::Write { name: number, seed, length } => {
                let data = bytes(seed, length);
                write(&self.vault().vfs(), &name(number), &data).await;
                self.tree.insert(name(number), data);
                self.record().await;
            }
            Deed::Unlink(number) => {
                let vfs = self.vault().vfs();
                let done = vfs.unlink(InodeNo::ROOT, name(number).as_bytes()).await;
                assert_eq!(done.is_ok(), self.tree.remove(&name(number)).is_some());
                self.record().await;
            }
            Deed::Hold(number, seed) => self.hold(number, seed).await,
            Deed::Checkpoint => self.vault().checkpoint().await.unwrap(),
            Deed::Wait(seconds) => self.wait(seconds),
            Deed::Snapshot(number) => self.snapshot(number).await,
            Deed::Forget(number) => {
                let name = format!("s{number}");
                let done = self.vault().delete_snapshot(name.as_bytes()).await;
                assert_eq!(done.is_ok(), self.snapshots.remove(&name).is_some());
            }
            Deed::Restore(number, from, polls) => {
                self.close_files().await;
                self.restore(number, from, polls).await;
                self.record().await;
            }
            Deed::Gc(by_hand) => {
                self.gc(by_hand).await;
                self.look().await;
            }
            Deed::GcIsKilled(polls) => {
                self.close_files().await;
                self.record().await;
                self.break_off(polls).await;
                self.open(self.at, false).await;
                self.look().await;
            }
            Deed::GcFails(loses_reply) => {
                self.close_files().await;
                self.fail(loses_reply).await;
                self.look().await;
            }
            Deed::Kill => {
                self.end().await;
                self.open(self.at, false).await;
            }
            Deed::Elsewhere => {
                self.close_files().await;
                self.record().await;
                self.vault().close(LONG).await.unwrap();
                self.vault = None;
                self.open(self.other(), false).await;
            }
            Deed::TakeOver => {
                self.record().await;
                self.end().await;
                self.open(self.other(), true).await;
            }
        }
    }
}

fn live(deeds: Vec<Deed>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(async {
        let mut life = ReclaimedLife::new().await;
        for deed in deeds {
            life.apply(deed).await;
        }
        life.close_files().await;
        drop(life.vault().reclaim(false, &|_| {}).await.unwrap());
        life.look().await;
        let secret = MasterKey::from_bytes(life.world.master);
        let unlocked = unlock(&life.world.bucket, None, &secret).await.unwrap();
        let report = check(&life.world.bucket, &unlocked, true, None, &|_, _| ()).await.unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        life.vault().close(LONG).await.unwrap();
    });
}

proptest! {
    #![proptest_config(crate::types::cases(12))]
    #[test]
    fn k5_whatever_is_deleted_when_promised_states_read_back(
        deeds in proptest::collection::vec(deed(), 10..40)
    ) {
        live(deeds);
    }
}
