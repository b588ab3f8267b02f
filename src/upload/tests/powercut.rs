//! A disk whose power is cut at a chosen step: what was not fsynced is there, partly there, or not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::upload::{Disk, DiskFile};

/// Contents of a file, and what of it is durable.
#[derive(Clone, Debug, Default)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
}

/// A staging directory in memory, and the durable part of a journal's directory on disk.
#[derive(Clone, Debug, Default)]
struct World {
    files: Vec<Contents>,
    /// Staging: name to file; now, and as of the last fsync of the directory.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Journal: by path; contents as of the last fsync of each, and names as of that of the directory.
    journal: BTreeMap<PathBuf, Vec<u8>>,
    journal_names: Vec<PathBuf>,
}

#[derive(Debug, Default)]
struct State {
    world: World,
    steps: usize,
    cut_at: Option<usize>,
    journal_dir: PathBuf,
    /// What was at the moment of the cut: the world, and the journal's files as they were in memory.
    cut: Option<(World, BTreeMap<PathBuf, Vec<u8>>)>,
    fail_syncs: bool,
}

/// Staging's and the journal's disk in one.
#[derive(Clone, Debug, Default)]
pub(super) struct PowerCut {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct Handle {
    disk: PowerCut,
    file: usize,
}

impl PowerCut {
    /// Cuts the power before step `cut_at` of the disk's calls.
    pub(super) fn new(journal_dir: &Path, cut_at: Option<usize>) -> Self {
        let journal_dir = journal_dir.to_owned();
        let state = State { cut_at, journal_dir, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
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

    /// What is there when the power comes back: a staging disk, and the journal's files written to `journal`.
    pub(super) fn after(&self, journal: &Path, seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let state = self.state.lock();
        let (world, cached) = state.cut.as_ref().unwrap();
        let mut files = Vec::new();
        for contents in &world.files {
            let now = survivor(&contents.durable, &contents.now, &mut dice);
            files.push(Contents { durable: now.clone(), now });
        }
        let mut names = BTreeMap::new();
        for file in 0..files.len() {
            let durable = world.durable_names.iter().find(|(_, f)| **f == file);
            let now = world.names.iter().find(|(_, f)| **f == file);
            let either = if dice.random() { durable } else { now };
            if let Some((name, _)) = either {
                names.insert(name.clone(), file);
            }
        }
        for (path, cached) in cached {
            let durable = world.journal.get(path).map_or(&[][..], Vec::as_slice);
            if world.journal_names.contains(path) || dice.random() {
                let file = journal.join(path.file_name().unwrap());
                std::fs::write(file, survivor(durable, cached, &mut dice)).unwrap();
            }
        }
        let world = World { files, durable_names: names.clone(), names, ..World::default() };
        let journal_dir = journal.to_owned();
        Self { state: Arc::new(Mutex::new(State { world, journal_dir, ..State::default() })) }
    }
}

/// What is left of a file: the durable part for sure; of the rest as much as the dice say, and perhaps not as written.
fn survivor(durable: &[u8], now: &[u8], dice: &mut StdRng) -> Vec<u8> {
    let common = durable.iter().zip(now).take_while(|(a, b)| a == b).count();
    let mut left = now[..common].to_vec();
    let unsynced = &now[common..];
    match dice.random_range(0..4) {
        0 => left.extend_from_slice(&durable[common..]),
        1 => left.extend_from_slice(unsynced),
        2 => left.extend_from_slice(&unsynced[..dice.random_range(0..=unsynced.len())]),
        _ => {
            let mut torn = unsynced.to_vec();
            if !torn.is_empty() {
                let from = dice.random_range(0..torn.len());
                if dice.random() {
                    dice.fill_bytes(&mut torn[from..]);
                } else {
                    torn[from..].fill(0);
                }
            }
            left.extend(torn);
        }
    }
    // A file that was cut since keeps at least its durable length.
    if left.len() < durable.len() {
        left.extend_from_slice(&durable[left.len()..]);
    }
    left
}

impl State {
    fn cut(&mut self) {
        if self.cut.is_some() {
            return;
        }
        let mut cached = BTreeMap::new();
        if let Ok(listed) = std::fs::read_dir(&self.journal_dir) {
            for entry in listed.flatten() {
                cached.insert(entry.path(), std::fs::read(entry.path()).unwrap_or_default());
            }
        }
        self.cut = Some((self.world.clone(), cached));
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
        Ok(world.names.iter().map(|(name, file)| (name.clone(), length(file))).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.step();
        let file = state.world.files.len();
        state.world.files.push(Contents::default());
        state.world.names.insert(name.to_owned(), file);
        drop(state);
        Ok(Arc::new(Handle { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = *self.state.lock().world.names.get(name).ok_or_else(missing)?;
        Ok(Arc::new(Handle { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.step();
        let file = state.world.names.remove(from).ok_or_else(missing)?;
        state.world.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step().world.names.remove(name).map(drop).ok_or_else(missing)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.step();
        state.check_sync()?;
        state.world.durable_names = state.world.names.clone();
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }

    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

impl DiskFile for Handle {
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

impl crate::log::Disk for PowerCut {
    fn sync_file(&self, _: &File, path: &Path) -> io::Result<()> {
        let mut state = self.step();
        state.check_sync()?;
        let bytes = std::fs::read(path)?;
        state.world.journal.insert(path.to_owned(), bytes);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.step();
        state.check_sync()?;
        let names = std::fs::read_dir(path)?.flatten().map(|entry| entry.path());
        state.world.journal_names = names.collect();
        Ok(())
    }
}
