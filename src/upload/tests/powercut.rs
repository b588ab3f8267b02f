//! A disk whose power is cut at a chosen step: what was not fsynced is there, partly there, or not there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::os::{Disk, DiskFile, survivor};

/// The content of a file, and how much of it is durable.
#[derive(Clone, Debug, Default)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
}

/// The names in a directory with their files: now, and at the last fsync of the directory.
#[derive(Clone, Debug, Default)]
struct Names {
    now: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
}

/// The directories of staging and the journal, in memory.
#[derive(Clone, Debug, Default)]
struct World {
    files: Vec<Contents>,
    directories: [Names; 2],
}

const STAGING: usize = 0;
const JOURNAL: usize = 1;

#[derive(Debug, Default)]
struct State {
    world: World,
    steps: usize,
    cut_at: Option<usize>,
    /// The state at the moment of the cut.
    cut: Option<World>,
    fail_syncs: bool,
}

/// One directory of a disk that staging and the journal share.
#[derive(Clone, Debug)]
pub(super) struct PowerCut {
    state: Arc<Mutex<State>>,
    directory: usize,
}

#[derive(Debug)]
struct CutFile {
    disk: PowerCut,
    file: usize,
}

impl PowerCut {
    /// Staging's directory. The power is cut before step `cut_at` of all calls to the disk.
    pub(super) fn new(cut_at: Option<usize>) -> Self {
        Self::of(State { cut_at, ..State::default() })
    }

    fn of(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)), directory: STAGING }
    }

    /// The journal's directory on the same disk.
    pub(super) fn journal(&self) -> Self {
        Self { state: self.state.clone(), directory: JOURNAL }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.state.lock().cut.is_some()
    }

    pub(super) fn cut_now(&self) {
        self.state.lock().cut();
    }

    /// From now on no fsync succeeds.
    pub(super) fn fail_syncs(&self) {
        self.state.lock().fail_syncs = true;
    }

    fn step(&self) -> parking_lot::MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.steps += 1;
        if state.cut_at == Some(state.steps) {
            state.cut();
        }
        state
    }

    /// What is there when the power comes back: staging's directory, with the journal's files in a real
    /// one.
    pub(super) fn after(&self, journal: &Path, seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let state = self.state.lock();
        let cut = state.cut.as_ref().unwrap();
        let mut world = World::default();
        for contents in &cut.files {
            let now = survivor(&contents.durable, &contents.now, &mut dice);
            world.files.push(Contents { durable: now.clone(), now });
        }
        for (names, left) in cut.directories.iter().zip(&mut world.directories) {
            for file in 0..cut.files.len() {
                let among = |names: &BTreeMap<String, usize>| {
                    names.iter().find(|(_, f)| **f == file).map(|(name, _)| name.clone())
                };
                let name = among(if dice.random() { &names.durable } else { &names.now });
                left.now.extend(name.map(|name| (name, file)));
            }
            left.durable = left.now.clone();
        }
        for (name, file) in &world.directories[JOURNAL].now {
            std::fs::write(journal.join(name), &world.files[*file].now).unwrap();
        }
        Self::of(State { world, ..State::default() })
    }
}

impl State {
    fn cut(&mut self) {
        if self.cut.is_some() {
            return;
        }
        self.cut = Some(self.world.clone());
    }

    fn names(&mut self, directory: usize) -> &mut Names {
        &mut self.world.directories[directory]
    }

    fn check_sync(&self) -> io::Result<()> {
        if self.fail_syncs { Err(io::Error::other("injected")) } else { Ok(()) }
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for PowerCut {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let world = &self.state.lock().world;
        let length = |file: &usize| world.files[*file].now.len() as u64;
        let names = world.directories[self.directory].now.iter();
        Ok(names.map(|(name, file)| (name.clone(), length(file))).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.step();
        let file = state.world.files.len();
        if state.names(self.directory).now.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.names(self.directory).now.insert(name.to_owned(), file);
        state.world.files.push(Contents::default());
        drop(state);
        Ok(Arc::new(CutFile { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let file = *state.names(self.directory).now.get(name).ok_or_else(missing)?;
        Ok(Arc::new(CutFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.step();
        let names = &mut state.names(self.directory).now;
        let file = names.remove(from).ok_or_else(missing)?;
        names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step().names(self.directory).now.remove(name).map(drop).ok_or_else(missing)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.step();
        state.check_sync()?;
        let names = state.names(self.directory);
        names.durable = names.now.clone();
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }

    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

impl DiskFile for CutFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.step();
        let now = &mut state.world.files[self.file].now;
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        now.resize(now.len().max(to), 0);
        now[from..to].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state.lock();
        let from = offset as usize;
        let now = &state.world.files[self.file].now;
        into.copy_from_slice(now.get(from..from + into.len()).ok_or_else(missing)?);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state.lock().world.files[self.file].now.len() as u64)
    }

    fn allocated(&self) -> io::Result<u64> {
        self.length()
    }

    fn take_room(&self, _: u64, _: u64) -> io::Result<bool> {
        Ok(false)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.disk.step().world.files[self.file].now.resize(length as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.step();
        state.check_sync()?;
        let contents = &mut state.world.files[self.file];
        contents.durable.clone_from(&contents.now);
        Ok(())
    }
}
