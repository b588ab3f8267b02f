//! Holes and shared extents.

use super::*;

impl Pair {
    pub(super) async fn allocate(
        &mut self,
        id: HandleId,
        open: OpenNode,
        mode: u8,
        (from, length): (u32, u32),
    ) {
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        let punch = libc::FALLOC_FL_PUNCH_HOLE | keep;
        let zero = libc::FALLOC_FL_ZERO_RANGE;
        let mode = [0, keep, punch, zero, zero | keep, libc::FALLOC_FL_COLLAPSE_RANGE]
            [usize::from(mode) % 6];
        let range = u64::from(from)..u64::from(from + length);
        let got = errno(self.world.vfs().allocate(id, mode, range).await);
        let expected = match mode {
            _ if !open.flags.write => Err(libc::EBADF),
            _ if length == 0 => Err(libc::EINVAL),
            libc::FALLOC_FL_COLLAPSE_RANGE => Err(libc::EOPNOTSUPP),
            mode => {
                let to = (from + length) as usize;
                // Allocating does not empty the range.
                let from = if mode & !keep == 0 { to } else { from as usize };
                self.model.empty(open, from, to, mode & keep != 0);
                Ok(())
            }
        };
        assert_eq!(got, expected);
    }

    pub(super) async fn copy(
        &mut self,
        from: (HandleId, OpenNode),
        to: u8,
        at: (u32, u32),
        length: u32,
    ) {
        let Some(to) = pick(&self.open, to) else { return };
        let (source, target) = (u64::from(at.0), u64::from(at.1));
        let got =
            self.world.vfs().copy_range((from.0, source), (to.0, target), length.into()).await;
        let got = errno(got);
        if !from.1.flags.read || !to.1.flags.write {
            assert_eq!(got, Err(libc::EBADF));
            return;
        }
        let is_same = from.1.ino == to.1.ino;
        if is_same && at.0 < at.1 + length && at.1 < at.0 + length {
            assert_eq!(got, Err(libc::EINVAL));
            return;
        }
        let copied = got.unwrap() as usize;
        let bytes = self.model.read(from.1, at.0 as usize, length as usize).unwrap();
        assert!(copied <= bytes.len() && (copied > 0 || bytes.is_empty()));
        self.model.publish(from.1.ino);
        self.model.publish(to.1.ino);
        if copied > 0 {
            self.model.write(to.1, Some(at.1 as usize), &bytes[..copied]).unwrap();
            self.model.publish(to.1.ino);
        }
    }

    /// A reported hole must be zeros up to where data is reported to begin; the end of the file is a hole.
    pub(super) async fn seek(&mut self, id: HandleId, open: OpenNode, offset: usize, data: bool) {
        let what = if data { Seek::Data } else { Seek::Hole };
        let got = errno(self.world.vfs().seek(id, offset as u64, what).await);
        let content = self.model.data(open.ino).clone();
        if offset >= content.len() {
            assert_eq!(got, Err(libc::ENXIO));
            return;
        }
        if let Ok(at) = got {
            let is_edge = at == offset as u64 || !data && at == content.len() as u64;
            assert!(is_edge || at.is_multiple_of(4096), "{at} is in no edge of a block");
        }
        match (got, data) {
            (Err(libc::ENXIO), true) => {
                assert!(content[offset..].iter().all(|byte| *byte == 0), "data called a hole");
            }
            (Ok(at), true) => {
                let at = at as usize;
                assert!((offset..content.len()).contains(&at));
                assert!(content[offset..at].iter().all(|byte| *byte == 0), "data called a hole");
            }
            (Ok(at), false) => assert!((offset..=content.len()).contains(&(at as usize))),
            (got, _) => panic!("{got:?}"),
        }
    }
}
