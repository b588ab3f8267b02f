//! The program as a part of the system: completions, manual pages, mount(8).

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::home::{Home, runs, wait_until};
use crate::support::{Manners, Strange, weed};

/// Whether this machine has the program.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[test]
fn completions_are_read_by_their_shells() {
    let home = Home::new();
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_s3vault")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    for shell in ["bash", "zsh", "fish"] {
        let done = home.type_in(&format!("completions {shell}")).exits(0);
        assert!(done.out.contains("umount") && !done.out.contains("attend"), "{shell}");
        assert!(!done.out.contains("daemon)"), "{shell}");
        fs::write(home.path(format!("s3vault.{shell}")), &done.out).unwrap();
    }
    let run = |shell: &str, script: &str| {
        let mut command = Command::new(shell);
        command.env("PATH", &path).env("HOME", home.path("")).current_dir(home.path(""));
        let output = command.args(["-c", script]).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{shell}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{shell}");
        text(&output.stdout)
    };
    let script = "source ./s3vault.bash; COMP_WORDS=(s3vault umo) COMP_CWORD=1; \
                  _s3vault s3vault umo s3vault; echo \"${COMPREPLY[@]}\"; \
                  COMP_WORDS=(s3vault completions '') COMP_CWORD=2; \
                  _s3vault s3vault '' completions; echo \"${COMPREPLY[@]}\"";
    let said = run("bash", script);
    assert!(said.starts_with("umount\n"), "{said}");
    assert!(said.contains("bash") && said.contains("fish"), "{said}");
    if has("zsh") {
        fs::copy(home.path("s3vault.zsh"), home.path("_s3vault")).unwrap();
        let script = "fpath=($PWD $fpath); autoload -Uz compinit && compinit -u -d ./dump && \
                      print ${_comps[s3vault]}; autoload +X -Uz _s3vault; whence -w _s3vault";
        assert_eq!(run("zsh", script), "_s3vault\n_s3vault: function\n");
    }
    if has("fish") {
        let script = "source ./s3vault.fish; complete -C 's3vault umo'";
        assert!(run("fish", script).starts_with("umount"), "fish");
    }
    home.type_in("completions tcsh").exits(2);
}

/// Renders a page at a width; returns the text and groff's warnings.
fn render(page: &str, width: &str) -> (String, String) {
    let mut command = Command::new("groff");
    command.args(["-man", "-ww", "-Tutf8", "-P-cbou", &format!("-rLL={width}n")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(output.stdout), text(output.stderr))
}

#[test]
fn manual_pages_render_without_a_warning() {
    let home = Home::new();
    let help = home.type_in("--help").exits(0).out;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names: Vec<_> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .collect();
    assert!(names.len() > 14, "{help}");
    let mut pages = vec![String::new(), "key add".into(), "serve token add".into()];
    pages.extend(names.into_iter().map(ToOwned::to_owned));
    for name in pages {
        let page = home.type_in(&format!("man {name}")).exits(0).out;
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH \"SEE ALSO\""] {
            assert!(page.contains(section), "{name}: {page}");
        }
        assert!(name.is_empty() || page.contains(".SH EXAMPLES"), "{name}");
        if has("groff") {
            let (shown, warnings) = render(&page, "80");
            assert_eq!(warnings, "", "{name}");
            let example = format!("s3vault {}", name.split(' ').next().unwrap_or_default());
            assert!(shown.contains(&example), "{shown}");
            assert!(!shown.contains("attend"), "{shown}");
        }
    }
    home.type_in("man frobnicate").exits(2).says("no command");
    home.type_in("man attend").exits(2);
}

/// A home with a vault named `backup`, whose passphrase is in the file `key`.
fn with_named_vault() -> Home {
    let home = Home::new();
    fs::write(home.path("key"), "correct horse").unwrap();
    fs::set_permissions(home.path("key"), fs::Permissions::from_mode(0o600)).unwrap();
    let url = format!("file://{}", home.path("bucket").display());
    let line = format!("init --bucket {url} --name backup --passphrase-file key");
    home.type_in(&line).exits(0);
    home
}

/// Runs a helper of mount(8) as mount(8) does; returns its exit code and output.
fn helper(home: &Home, name: &str, line: &str) -> (i32, String) {
    let link = home.path(name);
    if !link.exists() {
        symlink(env!("CARGO_BIN_EXE_s3vault"), &link).unwrap();
    }
    let ours = home.command(["status"]);
    let mut command = Command::new(link);
    command.args(line.split_whitespace()).current_dir(home.path("")).stdin(Stdio::null());
    for (name, value) in ours.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap(), text(output.stdout) + &text(output.stderr))
}

/// The line of /proc/mounts for a mountpoint: source, type, options.
fn mounted(path: &Path) -> Option<(String, String, String)> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().rfind(|line| line.split(' ').nth(1) == path.to_str())?;
    let field = |at| line.split(' ').nth(at).unwrap_or_default().to_owned();
    Some((field(0), field(2), field(3)))
}

#[test]
fn the_helper_of_mount_8_mounts_a_named_vault_with_the_options_of_fstab() {
    let home = with_named_vault();
    let key = home.path("key").display().to_string();
    let vault = home.path("vault");
    let shown = vault.display();
    let config = fs::read_to_string(home.config().join("config.toml")).unwrap();
    assert!(config.contains("name = \"backup\""), "{config}");

    let options =
        format!("rw,noexec,nosuid,_netdev,nofail,x-systemd.automount,passphrase-file={key}");
    let with = |more: &str| format!("backup {shown} -o {options}{more}");
    let (code, said) = helper(&home, "mount.s3vault", &with(",cachex-size=1GiB"));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("cache-size meant") && mounted(&vault).is_none(), "{said}");
    assert_eq!(helper(&home, "mount.s3vault", &with(",remount")).0, 1);
    assert_eq!(helper(&home, "mount.s3vault", &(with("") + " -f")), (0, String::new()));
    assert!(mounted(&vault).is_none());
    let (code, said) = helper(&home, "mount.s3vault", &format!("backqup {shown} -o {options}"));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("backup meant"), "{said}");

    // Nothing is printed, and the configuration, which may be the administrator's, is not changed.
    let more = ",allow_other,uid=1234,gid=77,umask=027,cache-size=1GiB";
    assert_eq!(helper(&home, "mount.s3vault", &with(more)), (0, String::new()));
    assert_eq!(fs::read_to_string(home.config().join("config.toml")).unwrap(), config);
    let (source, kind, flags) = mounted(&vault).unwrap();
    assert_eq!((&*source, &*kind), ("backup", "fuse.s3vault"));
    for flag in ["noexec", "nosuid", "rw", "allow_other"] {
        assert!(flags.split(',').any(|word| word == flag), "no {flag} in {flags}");
    }
    fs::write(vault.join("file"), "content").unwrap();
    fs::create_dir(vault.join("dir")).unwrap();
    for (name, kind) in [("file", libc::S_IFREG), ("dir", libc::S_IFDIR), ("", libc::S_IFDIR)] {
        let about = vault.join(name).metadata().unwrap();
        assert_eq!((about.uid(), about.gid(), about.mode()), (1234, 77, kind | 0o750), "{name}");
    }
    // Again, as `mount -a` may do: nothing breaks, and mount(8) is told that it failed.
    assert_eq!(helper(&home, "mount.s3vault", &with("")).0, 32);
    let (code, said) = helper(&home, "umount.s3vault", &format!("{shown} -t fuse.s3vault"));
    assert_eq!(code, 0, "{said}");
    assert!(mounted(&vault).is_none());

    // Without these options, what is stored looks as it was made. The vault is found by its name at its last
    // mountpoint.
    home.type_in(&format!("mount vault --bucket backup --passphrase-file {key} -o fsname=mine,ro"))
        .exits(0);
    let (source, _, flags) = mounted(&vault).unwrap();
    assert!(source == "mine" && flags.starts_with("ro,"), "{source} {flags}");
    let about = vault.join("file").metadata().unwrap();
    assert_eq!(about.uid(), fs::metadata(home.path("key")).unwrap().uid());
    let daemon = home.daemon(&vault);
    assert_eq!(helper(&home, "umount.s3vault", &format!("{shown} -l")).0, 0);
    assert!(mounted(&vault).is_none());
    wait_until("the daemon ends", || !runs(daemon));
    home.type_in("status").exits(0).says("No mount");
    home.type_in(&format!("mount backup --passphrase-file {key}"))
        .exits(0)
        .says("vault is mounted");
    assert!(mounted(&vault).is_some());
    home.type_in("umount vault").exits(0);
    home.type_in("mount vault -o allowx_other").exits(2).says("allow_other");
}

#[test]
fn a_service_of_systemd_finds_its_passphrase_among_its_credentials() {
    let home = with_named_vault();
    fs::create_dir(home.path("credentials")).unwrap();
    home.type_in("mount vault").exits(3);
    fs::rename(home.path("key"), home.path("credentials/passphrase")).unwrap();
    let directory = home.path("credentials").display().to_string();
    let home = home.with("CREDENTIALS_DIRECTORY", &directory);
    home.type_in("mount vault").exits(0);
    home.type_in("umount vault").exits(0);
}

/// mount(8) itself, in a mount namespace where /sbin has only the link, and with the environment of a boot.
#[test]
fn mount_8_finds_the_helper_and_umount_waits_for_the_uploads() {
    if !rustix::process::geteuid().is_root() || !has("unshare") {
        return;
    }
    let home = with_named_vault();
    let script = format!(
        "set -e\n\
         mount -t tmpfs none \"$(readlink -f /sbin)\"\n\
         for name in mount.s3vault umount.fuse.s3vault; do ln -s {program} /sbin/$name; done\n\
         printf 'backup {vault} s3vault {options},_netdev,nofail 0 0\\n' > {home}/fstab\n\
         mount -T {home}/fstab {vault}\n\
         echo content > {vault}/file\n\
         findmnt -n -o SOURCE,FSTYPE,OPTIONS {vault}\n\
         umount {vault}\n\
         ! mountpoint -q {vault}\n\
         mount -t s3vault backup {vault} -o {options},ro\n\
         cat {vault}/file\n\
         ! touch {vault}/other 2>&1\n\
         umount {vault}\n\
         ! mount -t s3vault backup {vault} -o {options},quark 2>&1\n",
        program = env!("CARGO_BIN_EXE_s3vault"),
        home = home.path("").display(),
        vault = home.path("vault").display(),
        options = format_args!(
            "passphrase-file={},config={},state-dir={}",
            home.path("key").display(),
            home.config().join("config.toml").display(),
            home.state().display()
        ),
    );
    fs::create_dir(home.path("vault")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).stdin(Stdio::null());
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    command.env("S3VAULT_MACHINE_ID", home.path("").display().to_string());
    command.env("XDG_DATA_HOME", home.path(".local/share"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{err}");
    let first = said.lines().next().unwrap();
    assert!(first.starts_with("backup fuse.s3vault rw,"), "{said}");
    assert!(said.contains("\ncontent\n") && said.contains("Read-only"), "{said}");
    assert!(said.contains("there is no option quark"), "{said}");
}

#[test]
fn doctor_looks_at_a_machine_with_and_without_a_vault() {
    let home = Home::new().with("S3VAULT_PASSPHRASE", "correct horse");
    let done =
        home.type_in("doctor").exits(0).says("no vault is known").says("no mount or service");
    for line in done.out.lines().filter(|line| !line.contains(" do: ") && !line.starts_with("All"))
    {
        assert!(["ok    ", "warn  "].iter().any(|level| line.starts_with(level)), "{line}");
    }
    assert!(!home.state().exists() && !home.data().exists(), "it makes nothing");
    let bucket = home.path("bucket");
    home.type_in(&format!("init --bucket file://{}", bucket.display())).exits(0);
    let done = home.type_in("doctor").exits(0);
    for what in [
        "list ",
        "round trip ",
        "put ",
        "conditional put ",
        "get ",
        "upload ",
        "download ",
        "delete ",
    ] {
        assert!(done.out.contains(&format!("\nok    {what}")), "no {what} in {}", done.out);
    }
    home.type_in("mount vault").exits(0);
    let vault = home.path("vault");
    home.type_in("doctor")
        .exits(0)
        .says(&format!("{} (process", vault.display()))
        .says("in use now");
    home.type_in("umount vault").exits(0);
    let left = walkdir::WalkDir::new(bucket.join("probe")).into_iter().flatten();
    assert_eq!(left.filter(|entry| entry.file_type().is_file()).count(), 0, "the probe is gone");
    home.type_in(&format!("doctor --bucket file://{}/none", home.path("").display()))
        .exits(1)
        .says("fail  bucket")
        .says("no directory");
    fs::write(home.config().join("config.toml"), "[[vualt]]\n").unwrap();
    home.type_in("doctor").exits(1).says("fail  configuration").says("is vault meant?");
}

#[test]
fn doctor_tells_what_a_bucket_denies_and_what_its_clock_says() {
    let weed = weed();
    let bucket = weed.bucket();
    let look = |manners: Manners, code: i32| {
        let proxy = Strange::start(weed.port(), manners);
        let home = Home::for_bucket(&bucket);
        let line =
            format!("doctor --bucket {}/p --endpoint-url {}", bucket.url(), proxy.endpoint());
        home.type_in(&line).exits(code).out
    };
    let said = look(Manners::default(), 0);
    assert!(said.contains("\nok    clock") && said.contains("\nok    delete"), "{said}");
    let said = look(Manners { denies_deletes: true, ..Manners::default() }, 0);
    assert!(said.contains("\nwarn  delete"), "{said}");
    assert!(said.contains("p/probe/") && said.contains("s3:DeleteObject"), "{said}");
    let said = look(Manners { clock: -100, ..Manners::default() }, 0);
    assert!(said.contains("\nwarn  clock") && said.contains("before the store's"), "{said}");
    let said = look(Manners { refuses_condition: Some(501), ..Manners::default() }, 1);
    assert!(said.contains("\nfail  conditional put") && said.contains("\nok    put"), "{said}");
    let said = look(Manners { knows: Some("another"), ..Manners::default() }, 1);
    assert!(said.contains("\nfail  list"), "{said}");
}

#[test]
fn config_show_tells_where_each_value_is_from_and_no_secret() {
    let home = with_named_vault();
    let home =
        home.with("S3VAULT_PASSPHRASE", "correct horse").with("AWS_SECRET_ACCESS_KEY", "hush");
    let home =
        home.with("AWS_ACCESS_KEY_ID", "known").with("HTTPS_PROXY", "http://me:hush@proxy:3128");
    let done = home.type_in("--state-dir other config show").exits(0);
    for (name, value, whence) in [
        ("config ", "config.toml", "(default)"),
        ("state-dir ", "/other", "(option --state-dir)"),
        ("bucket ", "/bucket", "(config file)"),
        ("passphrase ", "not shown", "(environment: S3VAULT_PASSPHRASE)"),
        ("credentials ", "not shown", "(environment: AWS_ACCESS_KEY_ID)"),
        ("HTTPS_PROXY ", "@proxy:3128", "(environment)"),
    ] {
        let line = done.out.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line.contains(value) && line.ends_with(whence), "{line}");
    }
    assert!(done.out.contains("\nvault backup: file://"), "{}", done.out);
    for secret in ["correct", "horse", "hush", "known"] {
        assert!(!done.out.contains(secret), "{}", done.out);
    }
    let home = home.with("AWS_REGION", "eu").with("S3VAULT_STATE_DIR", "/s");
    let done = home.type_in("config show --bucket s3://buck/p --endpoint-url http://h:1").exits(0);
    for line in [
        "state-dir         /s  (environment: S3VAULT_STATE_DIR)",
        "bucket            s3://buck/p  (option --bucket)",
        "endpoint-url      http://h:1  (option --endpoint-url)",
        "region            eu  (environment: AWS_REGION)",
    ] {
        assert!(done.out.lines().any(|shown| shown == line), "no {line} in\n{}", done.out);
    }
}
