//! A second machine that has the vault open for reading and follows what the writer writes (W5), with faults and a pace of its
//! own, over the writer's kills, deletions and new keys. Whatever it shows is a state that the writer had, and never an older one
//! than it has shown; with nothing wrong it is the state that the writer has in the bucket.
//!
//! It looks between the writer's steps, but its requests still fall between the writer's: it sees the store as it was a while
//! ago, and a little later with each request.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::model::Tree;
use super::run::{LONG, Outcome, SimulatedRun, fault};
use super::world::{Life, PATIENCE, Who, World, look};
use crate::store::{Bucket, Deadlines, Faulty, Lagging, On, Verb};
use crate::types::with_causes;
use crate::vault::Vault;

/// How often it looks by itself.
const EVERY: Duration = Duration::from_secs(10);
/// After how many looks it shows what is in the bucket, if nothing is wrong: one, and one more for each thing that a read found
/// to be gone.
const LOOKS: usize = 4;

pub(super) struct FollowingMachine {
    store: Arc<Lagging>,
    faulty: Arc<Faulty>,
    bucket: Bucket,
    life: Life,
    /// How many master keys there were when it was opened.
    keys: usize,
    /// The state that it has shown, as the model counts them.
    shown: usize,
}

impl FollowingMachine {
    fn beside(world: &World) -> Self {
        let store = Arc::new(Lagging::behind(world.ground.store.clone()));
        let faulty = Faulty::over(store.clone());
        let bucket = Bucket::over(faulty.clone(), "", Deadlines::of(Duration::from_secs(30)));
        Self { store, faulty, bucket, life: world.begin(), keys: 0, shown: 0 }
    }

    fn block<T>(&self, work: impl Future<Output = T>) -> Outcome<T> {
        let bounded = async { tokio::time::timeout(PATIENCE, work).await };
        self.life.runtime.block_on(bounded).map_err(|_| "a reader hangs".into())
    }

    /// Opens the vault, unless it is open. The inner error says what prevents it.
    fn open(&mut self, world: &World) -> Outcome<Result<Arc<Vault>, String>> {
        if let Some(vault) = &self.life.vault {
            return Ok(Ok(vault.clone()));
        }
        let follows = Some((&self.bucket, EVERY));
        let who = Who { read_only: true, follows, ..Who::writes("reader") };
        match self.block(world.open(who))? {
            Ok(vault) => {
                self.keys = world.ring.count();
                self.life.vault = Some(vault.clone());
                Ok(Ok(vault))
            }
            Err(error) => Ok(Err(with_causes(&error))),
        }
    }

    fn close(&mut self, world: &World) -> Outcome {
        if let Some(vault) = self.life.vault.take() {
            drop(self.block(vault.close(LONG))?);
        }
        self.life = world.begin();
        Ok(())
    }

    /// Looks for what is new, and then reads everything that it shows.
    fn look(&self, vault: &Vault, by_itself: bool) -> Outcome<Look> {
        let following = vault.following.as_ref().ok_or("it follows nothing")?;
        self.block(async {
            let looked = if by_itself {
                drop(vault.vfs().attributes(crate::types::InodeNo::ROOT).await);
                tokio::time::sleep(3 * EVERY).await;
                Ok(())
            } else {
                following.look().await.map_err(|error| with_causes(&error))
            };
            let seen = following.unmoved(look(vault)).await.map_err(|error| with_causes(&error));
            Look { looked, seen }
        })
    }
}

/// The result of a look.
struct Look {
    looked: Result<(), String>,
    seen: Result<Tree, String>,
}

impl SimulatedRun {
    fn with_the_reader(
        &mut self,
        act: impl FnOnce(&mut Self, &mut FollowingMachine) -> Outcome,
    ) -> Outcome {
        let mut reader =
            self.reader.take().unwrap_or_else(|| FollowingMachine::beside(&self.world));
        let done = act(self, &mut reader);
        let requests = reader.faulty.take_requests().len() as u64;
        self.trace(&[requests, reader.shown as u64]);
        self.reader = Some(reader);
        done
    }

    /// After days pass, the reader sees the store as it is after them.
    pub(super) fn days_pass_the_reader(&self) {
        if let Some(reader) = &self.reader {
            reader.store.catches_up();
        }
    }

    fn reader_shows(&mut self, reader: &mut FollowingMachine, at: usize) {
        self.tally.reader_looks += 1;
        self.tally.reader_moves += u64::from(at > reader.shown);
        reader.shown = at;
    }

    /// Looks beside the writer, with faults of its own. A failure to look is no error; what it shows must be right.
    pub(super) fn follow(&mut self, seed: u64) -> Outcome {
        self.with_the_reader(|run, reader| {
            let dice = &mut StdRng::seed_from_u64(seed);
            let (most, mut lag) = (dice.random_range(1..6), StdRng::seed_from_u64(dice.random()));
            reader.store.pace(move |_| lag.random_range(0..=most));
            for _ in 0..dice.random_range(0..4) {
                let verbs = [Verb::Get, Verb::Get, Verb::Head, Verb::List];
                let what = ["", "log/", "pack/", "page/", "checkpoint/", "superblock/"];
                let what = what[dice.random_range(0..what.len())];
                let on = On::next(verbs[dice.random_range(0..verbs.len())], what);
                let on = on.after(dice.random_range(0..4)).times(dice.random_range(1..5));
                reader.faulty.inject(on, fault(dice.random(), what));
            }
            if dice.random_range(0..8) == 0 {
                reader.close(&run.world)?;
            }
            let slept = [0, 0, 0, 4, 40, 4000, 100_000][dice.random_range(0..7)];
            let sleeps = async { tokio::time::sleep(Duration::from_secs(slept)).await };
            reader.life.runtime.block_on(sleeps);
            let opened = reader.open(&run.world)?;
            run.trace(&[u64::from(opened.is_ok())]);
            if let Ok(vault) = opened {
                let Look { looked, seen } = reader.look(&vault, dice.random())?;
                run.trace(&[u64::from(looked.is_ok()), u64::from(seen.is_ok())]);
                if let Ok(seen) = seen {
                    let at = run.model.follow(reader.shown, &seen)?;
                    run.reader_shows(reader, at);
                }
            }
            reader.faulty.heal();
            Ok(())
        })
    }

    /// The writer's state is in the bucket: with nothing wrong the reader shows it.
    pub(super) fn catch_up(&mut self) -> Outcome {
        if !self.sync()? || self.world.disk.has_ended() {
            return Ok(());
        }
        self.world.tick(&self.life);
        self.with_the_reader(|run, reader| {
            reader.store.catches_up();
            reader.faulty.heal();
            let mut trouble = String::new();
            for _ in 0..LOOKS {
                let vault = match reader.open(&run.world)? {
                    Ok(vault) => vault,
                    // The store broke what the writer puts at this moment.
                    Err(error) if run.broke_objects && error.contains("log/") => return Ok(()),
                    Err(error) => return Err(format!("a reader does not open the vault: {error}")),
                };
                let Look { looked, seen } = reader.look(&vault, false)?;
                match (looked, seen) {
                    (Ok(()), Ok(seen)) => {
                        let at = run.model.shows_now(&seen)?;
                        run.reader_shows(reader, at);
                        return Ok(());
                    }
                    // No machine there has the new key: mount again.
                    (Err(_), _) if run.world.ring.count() > reader.keys => {
                        reader.close(&run.world)?;
                    }
                    (Err(error), _) if run.broke_objects && error.contains("log/") => {
                        return Ok(());
                    }
                    (Err(error), _) => return Err(format!("a reader stays behind: {error}")),
                    (Ok(()), Err(error)) => trouble = error,
                }
            }
            Err(format!("a reader does not show the vault: {trouble}"))
        })
    }
}
