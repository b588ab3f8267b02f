//! What a vault may show: every state that it was in since the one that the bucket has, and which of them it must not fall
//! behind.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use crate::crypto::sha256;

/// What a path names.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum ModelNode {
    Directory,
    File(ModelFile),
}

/// A file.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ModelFile {
    /// Its inode number; 0 while unknown.
    pub ino: u64,
    pub mode: u32,
    pub content: Arc<Vec<u8>>,
    /// What the content may be instead: a publication failed, and is retried by itself.
    pub or: Vec<Arc<Vec<u8>>>,
}

impl ModelFile {
    /// A file whose content is certain.
    pub(super) fn new(ino: u64, mode: u32, content: Vec<u8>) -> Self {
        Self { ino, mode, content: Arc::new(content), or: Vec::new() }
    }

    fn allows(&self, there: &Self) -> bool {
        self.mode == there.mode
            && (self.ino == there.ino || self.ino == 0)
            && (self.content == there.content || self.or.contains(&there.content))
    }
}

impl ModelNode {
    /// Whether this allows what is there.
    fn allows(&self, there: &Self) -> bool {
        match (self, there) {
            (Self::Directory, Self::Directory) => true,
            (Self::File(file), Self::File(found)) => file.allows(found),
            _ => false,
        }
    }
}

impl fmt::Debug for ModelNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short =
            |content: &Vec<u8>| format!("{}#{}", content.len(), &sha256(content).to_string()[..8]);
        match self {
            Self::Directory => f.write_str("dir"),
            Self::File(ModelFile { ino, mode, content, or }) => {
                write!(f, "{ino}: {} {mode:o}", short(content))?;
                or.iter().try_for_each(|or| write!(f, " or {}", short(or)))
            }
        }
    }
}

/// A file system, by path.
pub(super) type Tree = BTreeMap<String, ModelNode>;

/// Changes a file, under all its names.
pub(super) fn change_file(tree: &mut Tree, path: &str, change: impl Fn(&mut ModelFile)) {
    let Some(ModelNode::File(found)) = tree.get(path) else { return };
    let ino = found.ino;
    for (at, node) in tree {
        if let ModelNode::File(file) = node
            && (at == path || (ino != 0 && file.ino == ino))
        {
            change(file);
        }
    }
}

/// From where a vault is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeenFrom {
    /// While it is mounted: what was answered, possibly with a change over which the disk failed.
    Mount,
    /// After a kill: the same, possibly with what was under way.
    Kill,
    /// After a loss of power: any state since the last fsync.
    PowerCut,
    /// From the bucket alone.
    Bucket,
}

/// The states, in order; the bucket has at least the first.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Earlier states, which the bucket had or passed: a reader may still show one.
    past: Vec<Tree>,
    states: Vec<Tree>,
    /// Index of the last state whose change was answered.
    answered: usize,
    /// Index of the last state that survives a loss of power.
    durable: usize,
}

impl Model {
    pub(super) fn new() -> Self {
        Self { states: vec![Tree::new()], ..Self::default() }
    }

    /// The current state, as far as changes were answered.
    pub(super) fn now(&self) -> &Tree {
        &self.states[self.answered]
    }

    /// A change was made and answered.
    pub(super) fn answered(&mut self, change: impl FnOnce(&mut Tree)) {
        self.states.truncate(self.answered + 1);
        self.under_way(change);
        self.answered = self.states.len() - 1;
    }

    /// A change was begun and not answered: it may have happened.
    pub(super) fn under_way(&mut self, change: impl FnOnce(&mut Tree)) {
        let mut state = self.states.last().cloned().unwrap_or_default();
        change(&mut state);
        self.states.push(state);
    }

    /// All that was answered survives a loss of power.
    pub(super) fn is_durable(&mut self) {
        self.durable = self.answered;
    }

    /// All that was answered is in the bucket.
    pub(super) fn is_in_bucket(&mut self) {
        let now = self.now().clone();
        self.states.truncate(self.answered + 1);
        self.begin_at(now);
    }

    /// Everything goes on from this state; the last one seen is the one before it.
    pub(super) fn begin_at(&mut self, state: Tree) {
        let mut past = std::mem::take(&mut self.past);
        past.append(&mut self.states);
        *self = Self { past, states: vec![state], ..Self::default() };
    }

    /// This was seen in the bucket, and no later state will ever be there.
    pub(super) fn ends_at(&mut self, seen: &Tree) {
        let last = self.states.iter().rposition(|state| allows(state, seen));
        self.states.truncate(last.map_or(0, |last| last + 1));
        self.states.push(seen.clone());
    }

    /// What a reader shows that last showed the state `from`: the first state from there on that allows it.
    pub(super) fn follow(&self, from: usize, seen: &Tree) -> Result<usize, String> {
        let all = || self.past.iter().chain(&self.states);
        let last = self.past.len() + self.answered;
        match all().enumerate().skip(from).find(|(_, state)| allows(state, seen)) {
            Some((at, _)) => Ok(at),
            None => {
                let went_back = all().take(from).any(|state| allows(state, seen));
                let why = if went_back { "it went back" } else { "it shows what never was" };
                let all: Vec<&Tree> = all().collect();
                let states = all.len();
                Err(differences(
                    &format!("a reader: {why} (state {from} or later, of {states})."),
                    all[last.min(states - 1)],
                    seen,
                ))
            }
        }
    }

    /// The state that a reader shows once it has caught up.
    pub(super) fn shows_now(&self, seen: &Tree) -> Result<usize, String> {
        match allows(self.now(), seen) {
            true => Ok(self.past.len() + self.answered),
            false => Err(differences("a reader that is up to date:", self.now(), seen)),
        }
    }

    /// Whether this may be seen there. What the only writer sees is what goes on from there.
    pub(super) fn see(&mut self, from: SeenFrom, seen: &Tree) -> Result<(), String> {
        let (first, last) = match from {
            SeenFrom::Mount | SeenFrom::Kill => (self.answered, self.states.len() - 1),
            SeenFrom::PowerCut => (self.durable, self.states.len() - 1),
            SeenFrom::Bucket => (0, self.states.len() - 1),
        };
        let mut states = (first..=last).rev();
        let Some(at) = states.find(|at| allows(&self.states[*at], seen)) else {
            return Err(self.complaint(from, first, last, seen));
        };
        if matches!(from, SeenFrom::Kill | SeenFrom::PowerCut) {
            // It may have been published in another form than the last: what is seen is the form. The bucket may still have the
            // other one.
            self.states.truncate(at + 1);
            self.states.push(seen.clone());
            self.answered = at + 1;
            if from == SeenFrom::PowerCut {
                self.durable = self.answered;
            }
        }
        Ok(())
    }

    fn complaint(&self, from: SeenFrom, first: usize, last: usize, seen: &Tree) -> String {
        let expected = &self.states[if from == SeenFrom::Bucket { last } else { first }];
        let title = format!("{from:?}: none of {} states allows it.", last - first + 1);
        differences(&title, expected, seen)
    }
}

fn differences(title: &str, expected: &Tree, seen: &Tree) -> String {
    let mut text = title.to_owned();
    let all: std::collections::BTreeSet<_> = expected.keys().chain(seen.keys()).collect();
    for path in all {
        let (expected, found) = (expected.get(path), seen.get(path));
        let right = match (expected, found) {
            (Some(expected), Some(found)) => expected.allows(found),
            _ => false,
        };
        if !right {
            _ = write!(text, "\n  {path}: expected {expected:?}, found {found:?}");
        }
    }
    text
}

fn allows(tree: &Tree, there: &Tree) -> bool {
    tree.len() == there.len()
        && tree.iter().all(|(path, node)| there.get(path).is_some_and(|found| node.allows(found)))
}
