//! Checks the state on this disk, and the running daemons.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;

use super::remark::Remark;
use crate::cli::daemon_report::{DaemonReport, State};
use crate::cli::last;
use crate::os;
use crate::vault;

/// The most files that are counted.
const ENTRIES: usize = 200_000;
/// File systems whose content is lost at the next boot, and file systems on other machines, where locks and fsync may
/// mean little.
const LOST: [&str; 3] = ["tmpfs", "ramfs", "overlay"];
const REMOTE: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "virtiofs"];

/// Checks the state directory, if it exists.
pub(crate) fn look_at_state(state: &Path) -> Vec<Remark> {
    let Some(there) = state.ancestors().find(|path| path.exists()) else { return Vec::new() };
    let mut remarks = vec![access(state), file_system(state, there), room(there)];
    let vaults = fs::read_dir(state).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut vaults: Vec<PathBuf> = vaults.filter(|path| path.is_dir()).collect();
    vaults.sort();
    remarks.extend(vaults.iter().map(|path| vault_state(path)));
    remarks
}

fn access(state: &Path) -> Remark {
    const WHAT: &str = "state directory";
    let shown = state.display();
    let about = match state.metadata() {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Remark::ok(WHAT, format!("{shown}, not there yet: the first mount makes it"));
        }
        Err(error) => {
            return Remark::fail(
                WHAT,
                format!("{shown}: {error}"),
                "give another one: --state-dir DIR",
            );
        }
    };
    let (user, _) = os::effective_ids();
    if about.uid() != user {
        let text = format!("{shown} belongs to user {}", about.uid());
        return Remark::fail(
            WHAT,
            text,
            format!("chown it, as root, or give another one: --state-dir DIR ({user})"),
        );
    }
    match about.permissions().mode() & 0o077 {
        0 => Remark::ok(WHAT, format!("{shown}, for this user alone")),
        _ => Remark::warn(
            WHAT,
            format!(
                "{shown} is open to others; all in it is encrypted, but they may see how much there is"
            ),
            format!("chmod 700 {shown}"),
        ),
    }
}

fn file_system(state: &Path, there: &Path) -> Remark {
    const WHAT: &str = "file system";
    let there = there.canonicalize().unwrap_or_else(|_| there.to_owned());
    let mounts = os::mounts().unwrap_or_default();
    let below = mounts.iter().filter(|mount| there.starts_with(&mount.path));
    let Some(mount) = below.max_by_key(|mount| mount.path.as_os_str().len()) else {
        return Remark::warn(WHAT, "not known", "mount /proc");
    };
    let text = format!("{} is on {}", state.display(), mount.kind);
    match mount.kind.as_str() {
        kind if LOST.contains(&kind) => Remark::warn(
            WHAT,
            text + ": what is not in the bucket yet is lost with the machine's memory, or with the container",
            "give a directory on a disk, or a volume: --state-dir DIR",
        ),
        kind if REMOTE.contains(&kind) || kind.starts_with("fuse") => Remark::warn(
            WHAT,
            text + ": its locks and fsync are another machine's word",
            "give a directory on a disk of this machine: --state-dir DIR",
        ),
        _ => Remark::ok(WHAT, text),
    }
}

fn room(there: &Path) -> Remark {
    const WHAT: &str = "disk space";
    let space = match os::space(there) {
        Ok(space) => space,
        Err(error) => return Remark::warn(WHAT, format!("not known: {error}"), "df"),
    };
    let usable = space.free.saturating_sub(os::keep_free(space.total));
    let text = format!(
        "{} free, of which {} may be used (the rest is left to others)",
        ByteSize::b(space.free),
        ByteSize::b(usable)
    );
    let mend = "make room, or give another disk: --state-dir DIR";
    match usable {
        ..72_000_000 => Remark::fail(WHAT, text + ": too little to write a vault", mend),
        72_000_000..1_073_741_824 => {
            Remark::warn(WHAT, text + ": little for what is on its way", mend)
        }
        _ => Remark::ok(WHAT, text),
    }
}

/// The bytes and number of files below a directory, up to the limit.
fn size(dir: &Path) -> (u64, usize) {
    let (mut bytes, mut files, mut next) = (0, 0, vec![dir.to_owned()]);
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            files += 1;
            if files > ENTRIES {
                return (bytes, files);
            }
            match entry.metadata() {
                Ok(about) if about.is_dir() => next.push(entry.path()),
                Ok(about) => bytes += about.blocks() * 512,
                Err(_) => {}
            }
        }
    }
    (bytes, files)
}

fn vault_state(dir: &Path) -> Remark {
    const WHAT: &str = "vault on disk";
    let name = dir.file_name().unwrap_or_default().display();
    let (bytes, files) = size(dir);
    let more = if files > ENTRIES { "more than " } else { "" };
    let use_ = if vault::is_held(dir) { ", in use now" } else { "" };
    let text =
        format!("{name}: {more}{} in {} files{use_}", ByteSize::b(bytes), files.min(ENTRIES));
    if let Some(wrote) = last::unfinished_in(dir) {
        return Remark::warn(
            WHAT,
            format!(
                "{text}; the daemon that wrote it did not end well: what was not in the bucket yet is here alone"
            ),
            format!(
                "mount {} again, and it is sent (or set aside for `s3vault recover`, if another machine took the vault over)",
                wrote.bucket
            ),
        );
    }
    let aside = dir.join("set-aside");
    if fs::read_dir(&aside).is_ok_and(|mut entries| entries.next().is_some()) {
        return Remark::warn(
            WHAT,
            format!("{text}; unsent work that could not be sent any more was set aside"),
            "`s3vault recover MOUNTPOINT` copies it back into the vault; with --remove it is then removed here".to_owned(),
        );
    }
    Remark::ok(WHAT, text)
}

/// Reports the state of the running daemons.
pub(crate) fn look_at_daemons(reports: &[DaemonReport]) -> Vec<Remark> {
    const WHAT: &str = "running";
    if reports.is_empty() {
        return vec![Remark::ok(WHAT, "no mount or service of this user")];
    }
    let one = |report: &DaemonReport| {
        let name = match report.mountpoint.as_str() {
            "" => format!("the service of {}", report.bucket),
            path => path.to_owned(),
        };
        let log = format!("see its log, {}", report.log);
        if report.state == State::Silent {
            return Remark::fail(
                WHAT,
                format!("{name} (process {}) does not answer", report.pid),
                log,
            );
        }
        if let Some(trouble) = &report.progress.trouble {
            return Remark::warn(
                WHAT,
                format!("{name}: the last upload failed: {trouble}"),
                "s3vault status",
            );
        }
        if let Some(reason) = &report.read_only_reason {
            return Remark::fail(WHAT, format!("{name} takes no changes: {reason}"), log);
        }
        match report.warnings.as_slice() {
            [] => Remark::ok(WHAT, format!("{name} (process {})", report.pid)),
            [first, ..] => Remark::warn(WHAT, format!("{name}: {first}"), "s3vault status"),
        }
    };
    reports.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::remark::Gravity;
    use super::*;

    #[test]
    fn a_state_directory_is_private_and_on_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        assert_eq!(access(&state).gravity, Gravity::Ok);
        fs::create_dir_all(state.join("vault/set-aside")).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(access(&state).gravity, Gravity::Warn);
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(access(&state).gravity, Gravity::Ok);
        assert_eq!(file_system(&state, Path::new("/proc")).gravity, Gravity::Ok);
        fs::write(state.join("vault/file"), vec![1; 10_000]).unwrap();
        let remark = vault_state(&state.join("vault"));
        assert!(remark.gravity == Gravity::Ok && remark.text.contains("in 2 files"), "{remark:?}");
        fs::write(state.join("vault/set-aside/1"), "").unwrap();
        assert_eq!(vault_state(&state.join("vault")).gravity, Gravity::Warn);
        assert!(look_at_state(&state).len() == 4);
    }

    #[test]
    fn what_does_not_answer_fails() {
        let silent = DaemonReport { state: State::Silent, ..DaemonReport::default() };
        assert_eq!(look_at_daemons(&[silent])[0].gravity, Gravity::Fail);
        let reason = Some("fenced".to_owned());
        let stuck = DaemonReport { read_only_reason: reason, ..DaemonReport::default() };
        assert_eq!(look_at_daemons(&[stuck])[0].gravity, Gravity::Fail);
        assert_eq!(look_at_daemons(&[])[0].gravity, Gravity::Ok);
    }
}
