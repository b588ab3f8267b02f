//! One run: the steps of a seed, one after the other, with a check after each reopening that nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::model::{Model, ModelNode, SeenFrom};
use super::programs::Program;
use super::reader::FollowingMachine;
use super::step::{LIES, Step};
use super::world::{Life, PATIENCE, World, look};
use crate::os::DiskFault;
use crate::store::{Error as StoreError, Fault, On};
use crate::vault::Vault;

/// How long to wait for a close or a sync.
pub(super) const LONG: Duration = Duration::from_secs(300);
/// How long after a full disk has room again nothing is refused any more.
pub(super) const RESUMES: Duration = Duration::from_secs(10);
/// How long old states are kept once something was deleted.
const RETENTION: Duration = Duration::from_secs(30);

/// What is to happen to the disk, by the number of its change.
#[derive(Clone, Default)]
pub(super) struct DiskPlan {
    pub(super) ends: Option<u64>,
    pub(super) full: std::ops::Range<u64>,
    pub(super) fails: Option<u64>,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) steps: u64,
    pub(super) kills: u64,
    pub(super) power_cuts: u64,
    pub(super) faults: u64,
    pub(super) openings: u64,
    pub(super) looks: u64,
    /// Broken commits that had to be deleted, as the refused mount said.
    pub(super) deleted: u64,
    /// Confirmed changes of the keys; how many of them were rotations; renewals that were waited for and finished; key
    /// epochs that nothing in the bucket needed at the end.
    pub(super) key_changes: u64,
    pub(super) rotations: u64,
    pub(super) renewals: u64,
    pub(super) retired: u64,
    /// Looks of a reader that follows, and how many of them moved it to another state.
    pub(super) reader_looks: u64,
    pub(super) reader_moves: u64,
    /// A hash of all that happened, in order: the same for the same seed.
    pub(super) trace: u64,
}

pub(super) struct SimulatedRun {
    pub(super) world: World,
    pub(super) life: Life,
    pub(super) model: Model,
    pub(super) tally: Tally,
    pub(super) plan: DiskPlan,
    /// The store was given faults since it was last healed.
    store_fails: bool,
    /// Listings may lack the newest objects.
    pub(super) lists_late: bool,
    /// The store was told to break what it is given.
    pub(super) broke_objects: bool,
    /// A change of the keys failed, as far as this process knows.
    pub(super) keys_unsure: bool,
    /// Whether a process that ends by itself does so by a loss of power.
    pub(super) by_power: bool,
    /// Another machine, which reads; set once it does.
    pub(super) reader: Option<FollowingMachine>,
    /// The store is out of reach of an ended process.
    pub(super) has_ended: Arc<AtomicBool>,
}

pub(super) type Outcome<T = ()> = Result<T, String>;

impl SimulatedRun {
    pub(super) fn new(seed: u64) -> Outcome<Self> {
        let world = World::new(seed);
        let life = world.begin();
        let mut run = Self {
            world,
            life,
            model: Model::new(),
            tally: Tally::default(),
            plan: DiskPlan::default(),
            store_fails: false,
            lists_late: false,
            broke_objects: false,
            keys_unsure: false,
            by_power: false,
            reader: None,
            has_ended: Arc::default(),
        };
        run.open(SeenFrom::Kill)?;
        Ok(run)
    }

    /// Runs all steps, and then checks what is left: here, and in the bucket.
    pub(super) fn all(mut self, steps: &[Step]) -> Outcome<Tally> {
        for (number, step) in steps.iter().enumerate() {
            let failed = |text: String| format!("step {number}, {step:?}: {text}");
            self.step(step).map_err(failed)?;
        }
        let ends = [
            Step::StoreHeals,
            Step::DiskHeals,
            Step::Kill,
            Step::Sync,
            Step::LookFromBucket,
            Step::Reopen,
        ];
        for step in ends {
            self.step(&step).map_err(|text| format!("at the end, {step:?}: {text}"))?;
        }
        self.keys_end().map_err(|text| format!("at the end, keys: {text}"))?;
        drop(self.reader);
        self.world.end(self.life);
        Ok(self.tally)
    }

    pub(super) fn vault(&self) -> Arc<Vault> {
        self.life.vault.clone().unwrap_or_else(|| unreachable!("opened"))
    }

    pub(super) fn healthy(&self) -> bool {
        !self.store_fails && self.plan.full.is_empty() && self.plan.fails.is_none()
    }

    /// Runs something in the program, which must end.
    pub(super) fn block<T>(&self, work: impl Future<Output = T>) -> Outcome<T> {
        let bounded = async { tokio::time::timeout(PATIENCE, work).await };
        self.life.runtime.block_on(bounded).map_err(|_| "it hangs".into())
    }

    fn step(&mut self, step: &Step) -> Outcome {
        self.tally.steps += 1;
        self.happen(step)?;
        self.world.tick(&self.life);
        let requests = self.world.ground.faulty.take_requests().len() as u64;
        let disk = &self.world.disk;
        self.trace(&[requests, disk.changes(), disk.written()]);
        if self.world.disk.has_ended() {
            let how = if self.by_power { SeenFrom::PowerCut } else { SeenFrom::Kill };
            return self.end(how);
        }
        Ok(())
    }

    pub(super) fn trace(&mut self, what: &[u64]) {
        for number in what {
            self.tally.trace = (self.tally.trace ^ number).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn happen(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Look => self.look(),
            Step::Sync => self.sync().map(drop),
            Step::Checkpoint => {
                if self.sync()? && self.life.vault.is_some() {
                    let vault = self.vault();
                    let made = self.block(vault.checkpoint())?;
                    if self.expected("a checkpoint", made)? {
                        return self.totals_are_right();
                    }
                }
                Ok(())
            }
            Step::Gc => self.gc(),
            Step::Reopen => self.reopen(),
            Step::LookFromBucket => self.look_from_bucket(),
            Step::Rotate { rewrite } => self.rotate(*rewrite),
            Step::Renew => self.renew(),
            Step::AddSlot => self.add_slot(),
            Step::RemoveSlot => self.remove_slot(),
            Step::DaysOff => self.days_off(),
            Step::Follow { seed } => self.follow(*seed),
            Step::CatchUp => self.catch_up(),
            Step::TakeOver { seed } => self.take_over(*seed),
            Step::Wait(milliseconds) => {
                let time = Duration::from_millis(*milliseconds);
                self.life.runtime.block_on(async { tokio::time::sleep(time).await });
                // J2: nothing stays unsynced for longer.
                if time >= Duration::from_secs(7) && self.healthy() && !self.is_read_only() {
                    self.model.is_durable();
                }
                Ok(())
            }
            Step::Kill => self.end(SeenFrom::Kill),
            Step::PowerCut => self.end(SeenFrom::PowerCut),
            Step::LoseIndex => self.lose("index"),
            Step::LoseCache => self.lose("cache"),
            Step::LoseState => self.lose_state(),
            Step::EndAt { .. }
            | Step::EndAtRequest { .. }
            | Step::DiskFull { .. }
            | Step::DiskFails { .. }
            | Step::DiskHeals
            | Step::StoreFault { .. }
            | Step::StoreGone
            | Step::StoreHeals => {
                self.befall(step);
                Ok(())
            }
            program => self.program(program),
        }
    }

    fn gc(&mut self) -> Outcome {
        if !self.sync()? || self.life.vault.is_none() {
            return Ok(());
        }
        let vault = self.vault();
        let deleted = self.block(async {
            if vault.retention().await? != RETENTION {
                vault.set_retention(RETENTION).await?;
            }
            vault.reclaim(false, &|_| {}).await.map(drop)
        })?;
        self.expected("a deletion", deleted).map(drop)
    }

    /// Makes disk and store worse, or better.
    fn befall(&mut self, step: &Step) {
        match step {
            Step::EndAt { changes, power } => {
                self.by_power = *power;
                self.plan.ends = Some(self.world.disk.changes() + changes);
                self.apply_plan();
            }
            Step::EndAtRequest { verb, what, kind, skip } => {
                self.tally.faults += 1;
                self.by_power = false;
                let last = fault(*kind, what);
                self.broke_objects |= matches!(last, Fault::KeepsOther | Fault::KeepsHalf);
                let (disk, has_ended) = (self.world.disk.clone(), self.has_ended.clone());
                let faulty = &self.world.ground.faulty;
                faulty.when_it_ends(move || {
                    disk.end();
                    has_ended.store(true, Ordering::Relaxed);
                });
                let on = verb.map_or_else(|| On::any(what), |verb| On::next(verb, what));
                faulty.inject(on.after(*skip), Fault::EndsWith(Box::new(last)));
            }
            Step::DiskFull { changes } => {
                let now = self.world.disk.changes();
                self.plan.full = now + changes.start..now + changes.end;
                self.apply_plan();
            }
            Step::DiskFails { change } => {
                self.plan.fails = Some(self.world.disk.changes() + change);
                self.apply_plan();
            }
            Step::DiskHeals => {
                (self.plan.full, self.plan.fails) = (0..0, None);
                self.apply_plan();
                // Everything resumes by itself a moment later (J8).
                self.life.runtime.block_on(async { tokio::time::sleep(RESUMES).await });
            }
            Step::StoreFault { verb, what, kind, skip, times } => {
                self.tally.faults += 1;
                self.store_fails = true;
                let fault = fault(*kind, what);
                self.lists_late |= matches!(fault, Fault::ListsLate);
                self.broke_objects |= matches!(fault, Fault::KeepsOther | Fault::KeepsHalf);
                // A pack that the store changed without telling: what lies there may be somebody's, and stays (C5).
                let what = if matches!(fault, Fault::KeepsOther) { "log/" } else { what };
                let on = On::next(*verb, what).after(*skip).times(*times);
                self.world.ground.faulty.inject(on, fault);
            }
            Step::StoreGone => {
                self.tally.faults += 1;
                self.store_fails = true;
                self.world.ground.faulty.disappear();
            }
            Step::StoreHeals => self.heal_store(),
            _ => unreachable!("nobody's fault"),
        }
    }

    pub(super) fn heal_store(&mut self) {
        (self.store_fails, self.lists_late) = (false, false);
        self.world.ground.faulty.heal();
    }

    pub(super) fn apply_plan(&mut self) {
        self.tally.faults += 1;
        let (plan, has_ended) = (self.plan.clone(), self.has_ended.clone());
        let faulty = self.world.ground.faulty.clone();
        self.world.disk.plan(move |change, _| {
            if plan.ends.is_some_and(|ends| change >= ends) {
                has_ended.store(true, Ordering::Relaxed);
                faulty.disappear();
                return Some(DiskFault::Ends);
            }
            if plan.fails == Some(change) {
                return Some(DiskFault::Fails);
            }
            plan.full.contains(&change).then_some(DiskFault::Full)
        });
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.life.vault.as_ref().is_some_and(|vault| vault.status().read_only.is_some())
    }

    fn program(&mut self, step: &Step) -> Outcome {
        let vault = self.vault();
        let disk = self.world.disk.clone();
        let was_read_only = self.is_read_only();
        let mut program = Program {
            vfs: vault.vfs(),
            vault: &vault,
            model: &mut self.model,
            has_ended: &|| disk.has_ended(),
            was_read_only,
        };
        let work = program.run(step);
        let bounded = async { tokio::time::timeout(PATIENCE, work).await };
        let done = self.life.runtime.block_on(bounded).map_err(|_| "it hangs".to_owned())?;
        let errno = done.err().map_or(0, |error| error.errno());
        self.trace(&[errno.cast_unsigned().into()]);
        // An error for a reason of the program's own is no failure.
        let why = [0, libc::ENOENT, libc::EEXIST, libc::ENOTEMPTY, libc::ENOTDIR, libc::EISDIR];
        if !why.contains(&errno) && self.healthy() && !self.is_read_only() && !disk.has_ended() {
            return Err(format!("errno {errno}, though nothing is wrong"));
        }
        Ok(())
    }

    /// A failure counts only if nothing is wrong.
    pub(super) fn expected<T, E: std::fmt::Display>(
        &self,
        what: &str,
        done: Result<T, E>,
    ) -> Outcome<bool> {
        match done {
            Ok(_) => Ok(true),
            Err(error)
                if self.healthy() && !self.is_read_only() && !self.world.disk.has_ended() =>
            {
                Err(format!("{what} fails though nothing is wrong: {error}"))
            }
            Err(_) => Ok(false),
        }
    }

    fn look(&mut self) -> Outcome {
        let vault = self.vault();
        match self.block(look(&vault))? {
            Ok(_) if self.world.disk.has_ended() => Ok(()),
            Ok(seen) => {
                self.tally.looks += 1;
                self.model.see(SeenFrom::Mount, &seen)
            }
            Err(error) => self.expected::<(), _>("a look", Err(error)).map(drop),
        }
    }

    /// Syncs; returns whether everything is in the bucket.
    pub(super) fn sync(&mut self) -> Outcome<bool> {
        let vault = self.vault();
        let synced = self.block(vault.sync(LONG))?;
        let done = self.expected("sync", synced)?;
        if done {
            self.settle();
        }
        Ok(done)
    }

    /// What was unpublished is published, and everything is in the bucket.
    fn settle(&mut self) {
        self.model.answered(|tree| {
            for node in tree.values_mut() {
                if let ModelNode::File(file) = node {
                    file.or.clear();
                }
            }
        });
        self.model.is_in_bucket();
    }

    pub(super) fn close(&mut self) -> Outcome {
        let vault = self.vault();
        let closed = self.block(vault.close(LONG))?;
        if self.expected("closing", closed)? {
            self.settle();
        }
        Ok(())
    }

    fn reopen(&mut self) -> Outcome {
        self.close()?;
        self.end(SeenFrom::Kill)
    }
}

/// The fault of each kind, for a request.
pub(super) fn fault(kind: u8, what: &str) -> Fault {
    let busy = || StoreError::Busy {
        object: format!("{what}(injected)"),
        cause: Arc::new(std::io::Error::other("503 Slow Down")),
    };
    match kind % 17 {
        _ if kind == LIES && what == "superblock/" => Fault::LiesAboutHalf,
        0 => Fault::Breaks,
        1 | 2 => Fault::LosesReply,
        3 => Fault::Stalls,
        4 => Fault::Delays(Duration::from_millis(200)),
        5 => Fault::Delays(Duration::from_secs(40)),
        6 => Fault::Trickles(20, Duration::from_secs(2)),
        7 => Fault::KeepsHalf,
        8 => Fault::KeepsNothing,
        9 => Fault::KeepsOther,
        10 => Fault::TellsNothing,
        11 => Fault::FlipsBit,
        12 => Fault::CutsOff,
        13 => Fault::Fails(busy()),
        14 | 15 => Fault::ListsLate,
        _ => Fault::Older(Duration::from_secs(u64::from(kind) * 3600)),
    }
}
