//! POSIX ACLs (acl(5)), as the kernel passes them: the values of two extended attributes. The kernel checks access by
//! them (`FUSE_POSIX_ACL`); the file system inherits them, and keeps mode and ACL in agreement.

use crate::index::Draft;
use crate::records::Inode;
use crate::types::InodeNo;

use super::{Error, Result};

/// The attribute with the ACL that decides about access.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute with a directory's ACL for what is created in it.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Whether an attribute is an ACL.
pub fn is_acl(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// One entry of an ACL: its tag, its permissions (3 bits), and the user or group that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AclEntry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// Whether these bytes are a valid ACL.
#[cfg(feature = "testing")]
pub(super) fn is_well_formed(bytes: &[u8]) -> bool {
    Acl::parse(bytes).is_ok()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Acl(Vec<AclEntry>);

impl Acl {
    /// The format of `linux/posix_acl_xattr.h`: a version, then 8 bytes an entry, all little-endian.
    fn parse(bytes: &[u8]) -> Result<Self> {
        let (version, entries) = bytes.split_first_chunk::<4>().ok_or(Error::Invalid)?;
        let (entries, rest) = entries.as_chunks::<8>();
        if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
            return Err(Error::Invalid);
        }
        let acl = Self(
            entries
                .iter()
                .map(|&[t, u, p, q, a, b, c, d]| AclEntry {
                    tag: u16::from_le_bytes([t, u]),
                    perm: u16::from_le_bytes([p, q]),
                    id: u32::from_le_bytes([a, b, c, d]),
                })
                .collect(),
        );
        if acl.is_valid() { Ok(acl) } else { Err(Error::Invalid) }
    }

    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let has_named = count(USER) + count(GROUP) > 0;
        let known = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER];
        self.0.iter().all(|entry| known.contains(&entry.tag) && entry.perm & !7 == 0)
            && [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1)
            && count(MASK) <= 1
            && (!has_named || count(MASK) == 1)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.perm.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    /// Whether the ACL says no more than the nine bits of a mode.
    fn is_mode(&self) -> bool {
        self.0.iter().all(|entry| matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER))
    }

    /// The entry that corresponds to a class of the mode. For the group it is the mask, if there is one.
    fn class(&mut self, shift: u32) -> Option<&mut AclEntry> {
        let has_mask = self.0.iter().any(|entry| entry.tag == MASK);
        let tag = match shift {
            6 => USER_OBJ,
            3 if has_mask => MASK,
            3 => GROUP_OBJ,
            _ => OTHER,
        };
        self.0.iter_mut().find(|entry| entry.tag == tag)
    }

    /// `mode`, with its nine bits taken from the ACL.
    fn mode(&mut self, mode: u32) -> u32 {
        [6, 3, 0].into_iter().fold(mode, |mode, shift| {
            let perm = self.class(shift).map_or(0, |entry| entry.perm);
            mode & !(7 << shift) | u32::from(perm) << shift
        })
    }

    /// Sets the ACL's permissions from the mode, after `chmod`.
    fn chmod(&mut self, mode: u32) {
        for shift in [6, 3, 0] {
            if let Some(entry) = self.class(shift) {
                entry.perm = (mode >> shift & 7) as u16;
            }
        }
    }

    /// Makes a directory's default ACL that of a new file, with only the permissions that `mode` allows too. Returns
    /// the mode.
    fn inherit(&mut self, mode: u32) -> u32 {
        for shift in [6, 3, 0] {
            if let Some(entry) = self.class(shift) {
                entry.perm &= (mode >> shift & 7) as u16;
            }
        }
        self.mode(mode)
    }
}

/// Who sets an ACL. As with `chmod`, setgid is removed unless the setter belongs to the file's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setter {
    /// The superuser: setgid stays.
    Superuser,
    /// A user who belongs to these groups.
    Member(Vec<u32>),
}

impl Setter {
    /// The part of `mode` that the setter may set for a file of this group.
    pub(super) fn allowed(&self, mode: u32, gid: u32) -> u32 {
        match self {
            Self::Member(groups) if !groups.contains(&gid) => mode & !libc::S_ISGID,
            _ => mode,
        }
    }
}

/// The nine bits of a mode that say the same as this ACL; `None` if it says more than a mode can.
pub(super) fn as_mode(value: &[u8]) -> Result<Option<u32>> {
    let mut acl = Acl::parse(value)?;
    Ok(acl.is_mode().then(|| acl.mode(0)))
}

/// If `name` is that of an ACL, sets it and the mode with it; for other attributes returns `false`. An access ACL that
/// says no more than a mode is not stored.
pub(super) fn set(
    draft: &mut Draft<'_>,
    ino: InodeNo,
    inode: &mut Inode,
    (name, value): (&[u8], &[u8]),
    by: &Setter,
) -> Result<bool> {
    if name == ACCESS {
        let mut acl = Acl::parse(value)?;
        inode.mode = by.allowed(acl.mode(inode.mode), inode.gid);
        if !acl.is_mode() {
            draft.put_xattr(ino, ACCESS, value);
        } else if draft.xattr(ino, ACCESS)?.is_some() {
            draft.delete_xattr(ino, ACCESS);
        }
        return Ok(true);
    }
    if name == DEFAULT {
        if !inode.is_dir() {
            return Err(Error::NotPermitted);
        }
        Acl::parse(value)?;
        draft.put_xattr(ino, DEFAULT, value);
        return Ok(true);
    }
    Ok(false)
}

/// After a change of the mode: brings the access ACL, if there is one, into agreement with it.
pub(super) fn after_chmod(draft: &mut Draft<'_>, ino: InodeNo, mode: u32) -> Result<()> {
    if let Some(value) = draft.xattr(ino, ACCESS)? {
        let mut acl = Acl::parse(&value)?;
        acl.chmod(mode);
        draft.put_xattr(ino, ACCESS, &acl.encode());
    }
    Ok(())
}

/// Applies the default ACL of its directory to a new inode; `false` if there is none (then the umask counts).
pub(super) fn inherit(
    draft: &mut Draft<'_>,
    parent: InodeNo,
    ino: InodeNo,
    inode: &mut Inode,
) -> Result<bool> {
    if inode.kind() == libc::S_IFLNK {
        return Ok(false);
    }
    let Some(default) = draft.xattr(parent, DEFAULT)? else { return Ok(false) };
    let mut acl = Acl::parse(&default)?;
    inode.mode = acl.inherit(inode.mode);
    if !acl.is_mode() {
        draft.put_xattr(ino, ACCESS, &acl.encode());
    }
    if inode.is_dir() {
        draft.put_xattr(ino, DEFAULT, &default);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16)]) -> Acl {
        Acl(entries.iter().map(|&(tag, perm)| AclEntry { tag, perm, id: u32::MAX }).collect())
    }

    #[test]
    fn a_mask_stands_for_the_group() {
        let mut acl = acl(&[(USER_OBJ, 7), (USER, 6), (GROUP_OBJ, 5), (MASK, 4), (OTHER, 1)]);
        assert_eq!(Acl::parse(&acl.encode()).unwrap(), acl);
        assert_eq!(acl.mode(libc::S_IFREG | 0o4000), libc::S_IFREG | 0o4741);
        acl.chmod(0o620);
        assert_eq!(acl.mode(0), 0o620);
        assert_eq!(acl.0[2].perm, 5, "the group's own entry stays");
        assert!(!acl.is_mode());
    }

    #[test]
    fn a_new_file_gets_what_default_and_mode_both_allow() {
        let mut default = acl(&[(USER_OBJ, 7), (USER, 7), (GROUP_OBJ, 7), (MASK, 7), (OTHER, 5)]);
        assert_eq!(default.inherit(0o640), 0o640);
        let mut plain = acl(&[(USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 0)]);
        assert_eq!(plain.inherit(0o666), 0o640);
        assert!(plain.is_mode());
    }

    #[test]
    fn malformed_acls_are_refused() {
        let good = acl(&[(USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 0)]).encode();
        assert!(Acl::parse(&good).is_ok());
        assert!(Acl::parse(&good[..good.len() - 1]).is_err());
        assert!(Acl::parse(&good[..20]).is_err(), "no entry for others");
        assert!(Acl::parse(&[]).is_err());
        let unmasked = acl(&[(USER_OBJ, 7), (USER, 7), (GROUP_OBJ, 5), (OTHER, 0)]);
        assert!(Acl::parse(&unmasked.encode()).is_err());
    }
}
