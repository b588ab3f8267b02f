//! What a vault may show: every state that it was in since the one that the bucket has, and which of them it must not
//! fall behind.

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
    /// Its inode's number; 0 while nobody knows it.
    pub ino: u64,
    pub mode: u32,
    pub content: Arc<Vec<u8>>,
    /// What the content may be instead: a publication failed, and is tried again by itself.
    pub or: Vec<Arc<Vec<u8>>>,
}

impl ModelFile {
    /// One whose content is certain.
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
    /// Whether what is there is this.
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

/// Where a vault is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeenFrom {
    /// While it is mounted: what was answered, or with what the disk failed over.
    Mount,
    /// After a kill: the same, or with what was under way.
    Kill,
    /// After a loss of power: anything since the last fsync.
    PowerCut,
    /// With nothing but the bucket.
    Bucket,
}

/// The states, in order; the first is what the bucket has at least.
#[derive(Debug, Default)]
pub(super) struct Model {
    states: Vec<Tree>,
    /// The last state whose change was answered.
    answered: usize,
    /// The last one that survives a loss of power.
    durable: usize,
}

impl Model {
    pub(super) fn new() -> Self {
        Self { states: vec![Tree::new()], ..Self::default() }
    }

    /// The state now, as far as changes were answered.
    pub(super) fn now(&self) -> &Tree {
        &self.states[self.answered]
    }

    /// A change was made and answered.
    pub(super) fn answered(&mut self, change: impl FnOnce(&mut Tree)) {
        self.states.truncate(self.answered + 1);
        self.under_way(change);
        self.answered = self.states.len() - 1;
    }

    /// A change was begun, and is not answered: it may have happened.
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
        self.begin_at(now);
    }

    /// Forgets all but this state.
    pub(super) fn begin_at(&mut self, state: Tree) {
        *self = Self { states: vec![state], ..Self::default() };
    }

    /// Whether this may be seen there. What is seen by the one writer is what goes on from there.
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
            // It may have been published in another form than the last: what is seen is what it is.
            self.states.truncate(at + 1);
            self.states[at] = seen.clone();
            self.answered = at;
            if from == SeenFrom::PowerCut {
                self.durable = at;
            }
        }
        Ok(())
    }

    fn complaint(&self, from: SeenFrom, first: usize, last: usize, seen: &Tree) -> String {
        let expected = &self.states[if from == SeenFrom::Bucket { last } else { first }];
        let mut text = format!("{from:?}: none of {} states allows it.", last - first + 1);
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
}

fn allows(tree: &Tree, there: &Tree) -> bool {
    tree.len() == there.len()
        && tree.iter().all(|(path, node)| there.get(path).is_some_and(|found| node.allows(found)))
}
