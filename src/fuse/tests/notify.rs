//! Changes by others, such as the HTTP service, beside a mount whose kernel has everything in its memory.

use super::*;
use crate::types::InodeNo;
use crate::vfs::{Caller, RenameMode, Vfs, WriteAt};

const OWNER: Caller = Caller { uid: 0, gid: 0, pid: 0, umask: 0o022 };
const ROOT: InodeNo = InodeNo::ROOT;

impl TestMount {
    fn others(&self) -> Vfs {
        self.world.as_ref().unwrap().vfs().clone()
    }

    /// Puts a file as an upload does: written without a name, then named.
    fn put(&self, parent: InodeNo, name: &str, content: &[u8]) {
        let vfs = self.others();
        self.runtime.block_on(async {
            let name = name.as_bytes();
            let handle = vfs.create_unnamed(&OWNER, 0o666, name).await.unwrap();
            vfs.write(handle, WriteAt::Offset(0), content).await.unwrap();
            let note = (&b"user.note"[..], |_| b"1".to_vec());
            vfs.give_name(handle, parent, name, RenameMode::Replace, note).await.unwrap();
            vfs.release(handle).await.unwrap();
        });
    }

    fn there(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path(name)).is_ok()
    }
}

#[test]
fn the_kernel_knows_at_once_what_others_change() {
    let Some(mount) = TestMount::new() else { return };
    let vfs = mount.others();
    let list = || {
        let list = fs::read_dir(mount.dir.path()).unwrap();
        let mut names: Vec<_> = list.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let changed = || {
        let root = fs::metadata(mount.dir.path()).unwrap();
        (root.nlink(), root.mtime(), root.mtime_nsec())
    };
    for round in 0..20 {
        let name = format!("f{}", round % 2);
        assert!(!mount.there(&name) && !list().contains(&name.clone().into()));
        let before = changed();
        mount.put(ROOT, &name, b"first");
        assert_eq!(fs::read(mount.path(&name)).unwrap(), b"first");
        assert!(changed() != before && list() == [&*name]);
        // An open file stays as it was when it is replaced; its name refers to the new one.
        let open = File::open(mount.path(&name)).unwrap();
        mount.put(ROOT, &name, b"the second, and longer");
        assert_eq!(fs::metadata(mount.path(&name)).unwrap().len(), 22);
        assert_eq!(fs::read(mount.path(&name)).unwrap(), b"the second, and longer");
        assert_eq!(open.metadata().unwrap().nlink(), 0);
        assert_eq!(std::io::read_to_string(open).unwrap(), "first");
        fs::hard_link(mount.path(&name), mount.path("other name")).unwrap();
        mount.runtime.block_on(vfs.unlink(ROOT, name.as_bytes())).unwrap();
        assert!(!mount.there(&name) && list() == ["other name"]);
        assert_eq!(fs::metadata(mount.path("other name")).unwrap().nlink(), 1);
        mount.runtime.block_on(vfs.unlink(ROOT, b"other name")).unwrap();
        assert!(!mount.there("other name") && list().is_empty());
        let nlink = changed().0;
        assert!(!mount.there("dir"));
        let dir = mount.runtime.block_on(vfs.mkdir(&OWNER, ROOT, b"dir", 0o755)).unwrap().ino;
        assert_eq!(changed().0, nlink + 1);
        assert!(!mount.there("dir/in it"));
        mount.put(dir, "in it", b"x");
        assert_eq!(fs::read(mount.path("dir/in it")).unwrap(), b"x");
        mount.runtime.block_on(vfs.unlink(dir, b"in it")).unwrap();
        let inside = File::open(mount.path("dir")).unwrap();
        mount.runtime.block_on(vfs.rmdir(ROOT, b"dir")).unwrap();
        assert!(!mount.there("dir") && changed().0 == nlink);
        assert_eq!(inside.metadata().unwrap().nlink(), 0);
    }
    mount.runtime.block_on(async {
        let begun = std::time::Instant::now();
        while vfs.recover().await.unwrap() > 0 {
            assert!(begun.elapsed().as_secs() < 60, "what the kernel was to forget it has not");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn the_kernel_hears_of_others_beside_all_that_it_does_itself() {
    let Some(mount) = TestMount::new() else { return };
    let vfs = mount.others();
    mount.put(ROOT, "always", b"0");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        for busy in 0..3 {
            let (mount, is_over) = (&mount, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    match busy {
                        // It is never incomplete, and never missing.
                        0 => assert!(!fs::read(mount.path("always")).unwrap().is_empty()),
                        1 => assert!(fs::read_dir(mount.dir.path()).unwrap().count() >= 1),
                        _ => {
                            _ = fs::metadata(mount.path("comes and goes"));
                            fs::write(mount.path("own"), b"x").unwrap();
                            fs::remove_file(mount.path("own")).unwrap();
                        }
                    }
                }
            });
        }
        for round in 1..400 {
            let content = format!("{round}").repeat(round % 50 + 1);
            mount.put(ROOT, "always", content.as_bytes());
            assert_eq!(fs::read_to_string(mount.path("always")).unwrap(), content);
            mount.put(ROOT, "comes and goes", b"x");
            assert!(mount.there("comes and goes"), "{round}");
            mount.runtime.block_on(vfs.unlink(ROOT, b"comes and goes")).unwrap();
            assert!(!mount.there("comes and goes"), "{round}");
        }
        drop(over);
    });
}
