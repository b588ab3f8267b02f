//! The lives of the program: how one ends, what the next one finds, and who else looks at the bucket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;

use super::keys::nothing_old_lives;
use super::model::{SeenFrom, Tree, change_file};
use super::run::{DiskPlan, LONG, Outcome, RESUMES, SimulatedRun};
use super::world::{OWNER, Who, look};
use crate::types::{InodeNo, with_causes};
use crate::vault::superblock::decode;
use crate::vault::tests::{USER, write};

/// Longer than commits are kept (K4).
const DAYS: Duration = Duration::from_hours(4 * 24);

impl SimulatedRun {
    /// Ends the process; the next one finds what is left.
    pub(super) fn end(&mut self, how: SeenFrom) -> Outcome {
        self.close_life();
        match how {
            SeenFrom::PowerCut => {
                self.tally.power_cuts += 1;
                self.world.reboot();
            }
            _ => {
                self.tally.kills += 1;
                self.world.disk.after_kill();
            }
        }
        self.open(how)
    }

    fn close_life(&mut self) {
        let next = self.world.begin();
        let life = std::mem::replace(&mut self.life, next);
        self.world.end(life);
        if self.has_ended.swap(false, Ordering::Relaxed) {
            self.heal_store();
        }
        self.plan = DiskPlan::default();
    }

    /// Opens the vault, despite initial faults, and checks what is there.
    pub(super) fn open(&mut self, how: SeenFrom) -> Outcome {
        let mut how = how;
        self.trouble_at_opening();
        for attempt in 0..4 {
            self.tally.openings += 1;
            let opened = self.block(self.world.open(OWNER))?;
            let ended = self.world.disk.has_ended();
            self.trace(&[u64::from(opened.is_ok()), u64::from(ended)]);
            match opened {
                Ok(vault) if !ended => {
                    self.life.vault = Some(vault);
                    break;
                }
                Ok(vault) => self.life.vault = Some(vault),
                Err(error) if attempt > 0 && self.healthy() && !ended => {
                    let text = with_causes(&error);
                    self.way_out(&text).ok_or(format!("it does not open: {text}"))?;
                }
                Err(_) => {}
            }
            // It ended in the middle, or a fault prevented the opening: try again without.
            self.close_life();
            if ended && self.by_power {
                self.tally.power_cuts += 1;
                self.world.reboot();
                how = if how == SeenFrom::Bucket { how } else { SeenFrom::PowerCut };
            } else {
                self.world.disk.after_kill();
            }
            self.world.disk.heal();
            self.heal_store();
        }
        let vault = self.vault();
        self.world.disk.heal();
        self.plan = DiskPlan::default();
        self.heal_store();
        let seen = self.block(look(&vault))?.map_err(|error| format!("after opening: {error}"))?;
        self.tally.looks += 1;
        self.model.see(how, &seen)?;
        if how == SeenFrom::Bucket {
            self.model.ends_at(&seen);
            self.model.begin_at(seen);
        }
        self.keys_are_right()
    }

    /// Unmounts, and turns the machine off for days.
    pub(super) fn days_off(&mut self) -> Outcome {
        self.close()?;
        self.close_life();
        self.tally.kills += 1;
        self.world.disk.after_kill();
        self.days_pass_the_reader();
        self.world.sleep(DAYS);
        self.world.tick(&self.life);
        self.open(SeenFrom::Kill)
    }

    /// A commit that the store broke, and that this machine never saw whole because it was killed just then: a mount is
    /// refused, and names the object to delete.
    fn way_out(&mut self, text: &str) -> Option<()> {
        let (object, _) = text.split_once(" does not open")?;
        let mut names = self.world.ground.store.names().into_iter();
        let last = names.rfind(|name| name.starts_with("log/"));
        if !self.broke_objects || last? != object {
            return None;
        }
        self.tally.deleted += 1;
        self.world.ground.store.steal(object).map(drop)
    }

    /// Sometimes makes something happen in the middle of the opening.
    fn trouble_at_opening(&mut self) {
        let now = self.world.disk.changes();
        let far = self.world.dice.random_range(0..80);
        match self.world.dice.random_range(0..12) {
            0..=1 => {
                self.by_power = self.world.dice.random();
                self.plan.ends = Some(now + far);
            }
            2 => self.plan.full = now + far..now + far + 20,
            3 => self.plan.fails = Some(now + far),
            _ => return,
        }
        self.apply_plan();
    }

    pub(super) fn lose(&mut self, what: &str) -> Outcome {
        self.close_life();
        self.tally.kills += 1;
        self.world.disk.after_kill();
        drop(std::fs::remove_dir_all(self.world.state_dir("a").join(what)));
        self.open(SeenFrom::Kill)
    }

    pub(super) fn lose_state(&mut self) -> Outcome {
        if !self.sync()? {
            return Ok(());
        }
        self.close_life();
        std::fs::remove_dir_all(self.world.state_dir("a")).map_err(|error| error.to_string())?;
        self.world.disk.begin_anew();
        self.open(SeenFrom::Bucket)
    }

    pub(super) fn look_from_bucket(&mut self) -> Outcome {
        // A new machine has only the listing, which is assumed not to be late (PROTOCOL, "The medium").
        if self.lists_late {
            self.heal_store();
        }
        let name = self.world.stranger();
        let who = Who { read_only: true, ..Who::writes(&name) };
        let seen = self.block(async {
            let vault = self.world.open(who).await.map_err(|error| error.to_string())?;
            let mut seen = look(&vault).await.map_err(|error| error.to_string());
            let sealed = &vault.options.unlocked.sealed;
            let (superblock, _) = decode(None, sealed).map_err(|error| error.to_string())?;
            if let Err(error) = nothing_old_lives(&vault, &superblock).await {
                seen = Err(error);
            }
            drop(vault.close(LONG).await);
            seen
        })?;
        drop(std::fs::remove_dir_all(self.world.ground.dir.path().join(&name)));
        match seen {
            Ok(seen) => {
                self.tally.looks += 1;
                self.model.see(SeenFrom::Bucket, &seen)
            }
            Err(error) => self.expected::<(), _>("a look from the bucket", Err(error)).map(drop),
        }
    }

    /// W3: what this machine still writes gets nowhere, and it is told so.
    fn is_fenced(&self) -> Outcome {
        let vault = self.vault();
        let (made, sent) = self.block(async {
            let made = vault.vfs().mkdir(&USER, InodeNo::ROOT, b"too late", 0o755).await;
            let mut sent = vault.sync(LONG).await;
            if sent.is_err() && !self.is_read_only() {
                // The disk was full until now: what waits for room is refused once more, and done a moment later (J8).
                tokio::time::sleep(RESUMES).await;
                sent = vault.sync(LONG).await;
            }
            (made.is_ok(), sent.is_ok())
        })?;
        // A refused change, as on a full disk, was not tried; and a writer with nothing to send is not told.
        if !made || (!sent && self.is_read_only()) {
            return Ok(());
        }
        Err("another machine took over, and this one goes on".into())
    }

    /// Another machine takes the vault over, changes it, and leaves it. What this one had not sent is set aside.
    pub(super) fn take_over(&mut self, seed: u64) -> Outcome {
        let lives_on = seed.is_multiple_of(2);
        if lives_on {
            self.plan = DiskPlan::default();
            self.world.disk.heal();
        } else {
            self.close_life();
            self.world.disk.after_kill();
        }
        self.heal_store();
        let who = Who { take_over: true, ..Who::writes("b") };
        let made = format!("b{}", seed % 3);
        let (before, after): (Tree, Tree) = self.block(async {
            let vault = self.world.open(who).await.map_err(|error| error.to_string())?;
            let before = look(&vault).await.map_err(|error| error.to_string())?;
            let content = crate::types::noise(seed, 5000);
            write(&vault.vfs(), &made, &content).await;
            let after = look(&vault).await.map_err(|error| error.to_string())?;
            vault.close(LONG).await.map_err(|error| error.to_string())?;
            Ok::<_, String>((before, after))
        })??;
        self.model.see(SeenFrom::Bucket, &before)?;
        self.model.ends_at(&before);
        // A file is first made or cut, and then gets its content.
        let mut between = after.clone();
        change_file(&mut between, &made, |file| file.content = Arc::default());
        self.model.begin_at(between);
        self.model.begin_at(after);
        if lives_on {
            self.is_fenced()?;
        }
        self.close_life();
        self.world.disk.after_kill();
        self.open(SeenFrom::Kill)
    }
}
