//! Checks what the machine offers for a mount: FUSE, its helper, swap, updatedb.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::places::Places;
use super::remark::{Gravity, Remark};

/// The names of the FUSE helper.
const HELPERS: [&str; 3] = ["fusermount3", "fusermount", "mount_fusefs"];
/// The number of `CAP_SYS_ADMIN`, which mounting requires.
const SYS_ADMIN: u32 = 21;

/// The most bytes read from a system file; such files are small.
const MOST: u64 = 1 << 20;

/// Runs all checks of the machine.
pub(crate) fn look_at_machine(places: &Places) -> Vec<Remark> {
    let mut remarks = vec![version(places), device(places), helper(places), right(places)];
    remarks.extend([allow_other(places), updatedb(places), swap(places)]);
    remarks
}

/// Why a mount is sure to fail, if it is; checked before anything is made for it. A helper may have its rights in a way
/// that cannot be seen here, so its presence is not questioned: the mount itself will tell.
pub(crate) fn cannot_mount(places: &Places) -> Option<Remark> {
    let is_there = HELPERS.iter().any(|name| find(places, name).is_some());
    let mut remarks = vec![device(places), right(places)];
    if !is_there && !has_right(places, "CapEff") {
        remarks.push(helper(places));
    }
    remarks.into_iter().find(|remark| remark.gravity == Gravity::Fail)
}

/// The text of a small file; `None` if it does not exist.
fn read(path: &Path) -> Option<String> {
    let bytes = crate::os::read_small(path, MOST).ok().flatten()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn version(places: &Places) -> Remark {
    let kernel =
        read(&places.kernel).map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    Remark::ok("version", format!("s3vault {}, kernel {kernel}", env!("CARGO_PKG_VERSION")))
}

fn device(places: &Places) -> Remark {
    const WHAT: &str = "fuse device";
    let shown = places.device.display();
    let opened = fs::OpenOptions::new().read(true).write(true).open(&places.device);
    let about = places.device.metadata();
    match (about, opened) {
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Remark::fail(
            WHAT,
            format!("there is no {shown}: nothing can be mounted"),
            "modprobe fuse, as root; in a container: --device /dev/fuse --cap-add SYS_ADMIN",
        ),
        (Ok(about), _) if !about.file_type().is_char_device() => Remark::fail(
            WHAT,
            format!("{shown} is no device"),
            format!("rm {shown}, then modprobe fuse, as root"),
        ),
        (_, Err(error)) => Remark::fail(
            WHAT,
            format!("{shown} cannot be opened by this user: {error}"),
            format!("chmod 666 {shown}, as root (a rule of udev's does it on most systems)"),
        ),
        _ => Remark::ok(WHAT, format!("{shown} can be opened")),
    }
}

fn find(places: &Places, program: &str) -> Option<PathBuf> {
    places.path.iter().map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn helper(places: &Places) -> Remark {
    const WHAT: &str = "fusermount3";
    let Some(path) = find(places, WHAT) else {
        return match places.is_root {
            true => Remark::ok(WHAT, "not there; root mounts without it"),
            false => {
                Remark::fail(WHAT, "not there: only root can mount", "install the package fuse3")
            }
        };
    };
    let shown = path.display();
    let Ok(about) = path.metadata() else {
        return Remark::fail(
            WHAT,
            format!("{shown} cannot be looked at"),
            format!("ls -l {shown}"),
        );
    };
    let is_setuid = about.uid() == 0 && about.permissions().mode() & 0o4000 != 0;
    match (places.is_root, is_setuid) {
        (false, false) => Remark::fail(
            WHAT,
            format!("{shown} is not setuid root: only root can mount"),
            format!(
                "chown root {shown} && chmod u+s {shown}, as root, or install the package fuse3 anew"
            ),
        ),
        (true, false) => Remark::warn(
            WHAT,
            format!("{shown} is not setuid root: root can mount, others cannot"),
            format!("chmod u+s {shown}, if others are to"),
        ),
        _ => Remark::ok(WHAT, format!("{shown}, setuid root")),
    }
}

/// Whether a capability set of this process includes the right to mount. If the set is not known, it is assumed to.
fn has_right(places: &Places, set: &str) -> bool {
    let text = read(&places.process).unwrap_or_default();
    let sets = text.lines().filter_map(|line| line.split_once(':'));
    let mut bits = sets.filter(|(name, _)| *name == set).map(|(_, bits)| bits.trim());
    let bits = bits.find_map(|bits| u64::from_str_radix(bits, 16).ok());
    bits.is_none_or(|bits| bits & 1 << SYS_ADMIN != 0)
}

/// Whether this process, and those it starts, setuid or not, can get the right to mount.
fn right(places: &Places) -> Remark {
    const WHAT: &str = "right to mount";
    match has_right(places, "CapBnd") {
        true => Remark::ok(WHAT, "not taken from this process"),
        false => Remark::fail(
            WHAT,
            "taken from this process (CAP_SYS_ADMIN is not in its bounding set): nothing can be mounted",
            "in a container: --device /dev/fuse --cap-add SYS_ADMIN",
        ),
    }
}

fn allow_other(places: &Places) -> Remark {
    const WHAT: &str = "allow_other";
    let text = read(&places.fuse_conf).unwrap_or_default();
    let is_set = text.lines().any(|line| line.trim() == "user_allow_other");
    match (is_set, places.is_root) {
        (true, _) => Remark::ok(WHAT, "every user may mount with --allow-other"),
        (_, true) => Remark::ok(WHAT, "root may mount with --allow-other"),
        _ => Remark::warn(
            WHAT,
            "this user's mounts are for this user alone: --allow-other would be refused",
            format!(
                "if that is wanted: echo user_allow_other >> {}, as root",
                places.fuse_conf.display()
            ),
        ),
    }
}

/// The words of a setting, `NAME = "a b c"`.
fn words<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let line = text.lines().rfind(|line| {
        line.trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
    });
    let value = line.and_then(|line| line.split_once('=')).map_or("", |(_, value)| value);
    value.split(|c: char| c.is_whitespace() || c == '"').filter(|word| !word.is_empty()).collect()
}

fn updatedb(places: &Places) -> Remark {
    const WHAT: &str = "updatedb";
    let Some(text) = read(&places.updatedb_conf) else {
        return Remark::ok(WHAT, "not there, so nothing walks through the vault at night");
    };
    let kinds = words(&text, "PRUNEFS");
    if kinds.iter().any(|kind| kind.eq_ignore_ascii_case("fuse.s3vault")) {
        return Remark::ok(WHAT, "leaves vaults out (PRUNEFS)");
    }
    Remark::warn(
        WHAT,
        "walks through each vault that root sees mounted, once a day, and writes all names into its database, in the clear",
        format!("add fuse.s3vault to PRUNEFS in {}", places.updatedb_conf.display()),
    )
}

fn swap(places: &Places) -> Remark {
    const WHAT: &str = "swap";
    let table = read(&places.swaps).unwrap_or_default();
    let in_use = table.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let bare: Vec<_> = in_use.filter(|path| !is_safe(places, Path::new(path))).collect();
    if bare.is_empty() {
        return Remark::ok(WHAT, "none, or encrypted, or in memory");
    }
    Remark::warn(
        WHAT,
        format!(
            "{} may be in the clear: what is read from a vault may be written there (keys are not, where memory can be locked)",
            bare.join(", ")
        ),
        "encrypt it (crypttab(5), option swap), or use zram; nothing to do if the disk below is encrypted",
    )
}

/// Whether a swap device is encrypted (dm-crypt) or compressed memory.
fn is_safe(places: &Places, path: &Path) -> bool {
    let device = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let Some(name) = device.file_name() else { return false };
    let is_memory = name.to_string_lossy().starts_with("zram");
    let id = read(&places.blocks.join(name).join("dm/uuid")).unwrap_or_default();
    is_memory || id.starts_with("CRYPT-")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that lacks everything.
    fn bare(root: &Path) -> Places {
        let at = |name: &str| root.join(name);
        Places {
            device: at("fuse"),
            path: vec![at("bin")],
            fuse_conf: at("fuse.conf"),
            updatedb_conf: at("updatedb.conf"),
            swaps: at("swaps"),
            blocks: at("block"),
            kernel: at("osrelease"),
            process: at("status"),
            is_root: false,
        }
    }

    fn gravity(places: &Places, what: &str) -> Gravity {
        let remarks = look_at_machine(places);
        let remark = remarks.iter().find(|remark| remark.what == what).unwrap();
        assert_eq!(remark.gravity == Gravity::Ok, remark.mend.is_empty(), "{remark:?}");
        remark.gravity
    }

    #[test]
    fn what_is_missing_fails_and_what_is_there_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let mut places = bare(root);
        assert_eq!(gravity(&places, "fuse device"), Gravity::Fail);
        fs::write(&places.device, "").unwrap();
        assert_eq!(gravity(&places, "fuse device"), Gravity::Fail, "no device");
        places.device = "/dev/null".into();
        assert_eq!(gravity(&places, "fuse device"), Gravity::Ok);

        assert_eq!(gravity(&places, "fusermount3"), Gravity::Fail);
        places.is_root = true;
        assert_eq!(gravity(&places, "fusermount3"), Gravity::Ok);
        let helper = root.join("bin/fusermount3");
        fs::create_dir(root.join("bin")).unwrap();
        fs::write(&helper, "").unwrap();
        assert_eq!(gravity(&places, "fusermount3"), Gravity::Warn);
        places.is_root = false;
        assert_eq!(gravity(&places, "fusermount3"), Gravity::Fail);
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o4755)).unwrap();
        let owner = if helper.metadata().unwrap().uid() == 0 { Gravity::Ok } else { Gravity::Fail };
        assert_eq!(gravity(&places, "fusermount3"), owner);

        assert_eq!(gravity(&places, "right to mount"), Gravity::Ok, "nobody says");
        fs::write(&places.process, "Uid:\t0\nCapEff:\t00000000a80425fb\n").unwrap();
        assert_eq!(gravity(&places, "right to mount"), Gravity::Ok);
        fs::write(&places.process, "CapBnd:\t000001ffffffffff\n").unwrap();
        assert_eq!(gravity(&places, "right to mount"), Gravity::Ok);
        fs::write(&places.process, "CapBnd:\t00000000a80425fb\n").unwrap();
        assert_eq!(gravity(&places, "right to mount"), Gravity::Fail);

        assert_eq!(gravity(&places, "allow_other"), Gravity::Warn);
        fs::write(&places.fuse_conf, "#user_allow_other\n").unwrap();
        assert_eq!(gravity(&places, "allow_other"), Gravity::Warn);
        fs::write(&places.fuse_conf, "mount_max = 9\nuser_allow_other\n").unwrap();
        assert_eq!(gravity(&places, "allow_other"), Gravity::Ok);
    }

    #[test]
    fn a_mount_that_is_sure_to_fail_is_known_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut places = bare(dir.path());
        let why = |places: &Places| cannot_mount(places).map(|remark| remark.what);
        assert_eq!(why(&places), Some("fuse device"));
        places.device = "/dev/null".into();
        fs::write(&places.process, "CapEff:\t0\nCapBnd:\t1ffffffffff\n").unwrap();
        assert_eq!(why(&places), Some("fusermount3"));
        fs::create_dir(dir.path().join("bin")).unwrap();
        // The helper may have rights that only its file system knows about.
        fs::write(dir.path().join("bin/fusermount"), "").unwrap();
        assert_eq!(why(&places), None);
        places.path.clear();
        fs::write(&places.process, "CapEff:\t200000\nCapBnd:\t200000\n").unwrap();
        assert_eq!(why(&places), None, "it mounts by itself");
        fs::write(&places.process, "CapEff:\t0\nCapBnd:\t0\n").unwrap();
        assert_eq!(why(&places), Some("right to mount"));
    }

    #[test]
    fn what_would_show_names_or_content_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let places = bare(dir.path());
        assert_eq!(
            (gravity(&places, "updatedb"), gravity(&places, "swap")),
            (Gravity::Ok, Gravity::Ok)
        );
        fs::write(
            &places.updatedb_conf,
            "PRUNE_BIND_MOUNTS=\"yes\"\nPRUNEFS = \"NFS fuse.sshfs\"\n",
        )
        .unwrap();
        assert_eq!(gravity(&places, "updatedb"), Gravity::Warn);
        fs::write(&places.updatedb_conf, "PRUNEFS=\"NFS fuse.s3vault proc\"\n").unwrap();
        assert_eq!(gravity(&places, "updatedb"), Gravity::Ok);

        let head = "Filename Type Size Used Priority\n";
        fs::write(&places.swaps, head).unwrap();
        assert_eq!(gravity(&places, "swap"), Gravity::Ok);
        fs::write(
            &places.swaps,
            format!("{head}/dev/zram0 partition 1 0 5\n/dev/dm-7 partition 1 0 5\n"),
        )
        .unwrap();
        assert_eq!(gravity(&places, "swap"), Gravity::Warn);
        fs::create_dir_all(places.blocks.join("dm-7/dm")).unwrap();
        fs::write(places.blocks.join("dm-7/dm/uuid"), "CRYPT-PLAIN-swap\n").unwrap();
        assert_eq!(gravity(&places, "swap"), Gravity::Ok);
        fs::write(&places.swaps, format!("{head}/swapfile file 1 0 5\n")).unwrap();
        assert_eq!(gravity(&places, "swap"), Gravity::Warn);
    }
}
