//! `s3vault init` without arguments at a terminal: it asks, tests, and makes the vault.

use std::fs;

use crate::support::home::Home;
use crate::support::terminal::{COLUMNS, RECOVERY_KEY, at_a_terminal, looking_at};
use crate::support::{TestBucket, noise, weed};

#[test]
fn init_at_a_terminal_asks_for_all_that_is_needed() {
    let home = Home::new();
    // A passphrase, and the recovery key typed back, once wrong.
    let directory = home.path("disk/store").display().to_string();
    let answers =
        ["1", &*directory, "backup", "correct horse", "correct horse", "no", RECOVERY_KEY];
    let (code, said) = at_a_terminal(&home, "init", &answers);
    assert_eq!(code, 0, "{said}");
    for what in [
        "Cloudflare R2",
        "ok    conditional put",
        "That is another one",
        "That is it",
        "mount backup",
    ] {
        assert!(said.contains(what), "no {what:?} in {said}");
    }
    assert!(!said.contains("correct horse"), "{said}");
    fs::write(home.path("key"), "correct horse").unwrap();
    home.type_in("mount vault --bucket backup --passphrase-file key").exits(0);
    home.type_in("umount vault").exits(0);
    // A second vault in the same place is refused before a passphrase is asked for, and a name in use is not offered.
    let (code, said) = at_a_terminal(&home, "init", &["1", &directory]);
    assert_eq!(code, 9, "{said}");
    assert!(!said.contains("New passphrase"), "{said}");
    let other = home.path("other/backup").display().to_string();
    let (code, said) =
        at_a_terminal(&home, "init", &["1", &other, "backup", "", "a b c d", "a b c d", ""]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("[backup-2]") && said.contains("is called backup-2"), "{said}");

    // A user who does not type the key back correctly gets no vault.
    let third = home.path("third").display().to_string();
    let wrong = ["1", &*third, "third", "a b c d", "a b c d", "x", "x", "x", "x", "x"];
    let (code, said) = at_a_terminal(&home, "init", &wrong);
    assert!(code != 0 && said.contains("was not typed back"), "{said}");
    home.type_in(&format!("mount vault --bucket file://{third} --passphrase-file key")).exits(8);
}

#[test]
fn init_at_a_terminal_makes_the_bucket_if_that_is_wanted() {
    let weed = weed();
    let bucket: TestBucket = weed.bucket();
    let home = bucket.environment().into_iter().fold(Home::new(), |home, (name, value)| {
        if name.starts_with("AWS_ENDPOINT") { home } else { home.with(name, &value) }
    });
    let (name, endpoint) = (format!("{}-new", bucket.name()), bucket.endpoint().to_owned());
    let answers = ["10", &*endpoint, &*name, "p", "y", "weed", "a b c d e", "a b c d e", ""];
    let (code, said) = at_a_terminal(&home, "init", &answers);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("Make this bucket?") && said.contains("ok    delete"), "{said}");
    let config = fs::read_to_string(home.config().join("config.toml")).unwrap();
    for line in [
        format!("url = \"s3://{name}/p\""),
        format!("endpoint = \"{endpoint}\""),
        "name = \"weed\"".into(),
    ] {
        assert!(config.contains(&line), "no {line} in {config}");
    }
}

/// The screen refreshes by itself, is restored afterwards, and a key ends it.
#[test]
fn status_with_watch_shows_what_is_on_its_way_until_a_key_is_pressed() {
    let home = Home::new().with("TERM", "xterm");
    let vault = home.path("vault");
    home.type_in("mount vault").exits(0);
    fs::write(vault.join("sent"), "x").unwrap();
    home.type_in("sync vault").exits(0);
    let (store, away) = (home.data().join("store"), home.path("away"));
    let nothing_goes = || {
        fs::rename(&store, &away).unwrap();
        fs::write(vault.join("unsent"), "x").unwrap();
        ""
    };
    let it_goes_again = || {
        fs::rename(&away, &store).unwrap();
        ""
    };
    let steps: [(&str, &dyn Fn() -> &'static str); 4] = [
        ("everything is in the bucket", &nothing_goes),
        ("in 1 pack", &|| ""),
        ("is its disk mounted?", &it_goes_again),
        ("everything is in the bucket", &|| "q"),
    ];
    let (code, said) = looking_at(&home, "status --watch vault", &steps);
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("\x1b[?1049h") && said.ends_with("\x1b[?1049l"), "{said:?}");
    home.type_in("umount vault").exits(0);
}

#[test]
fn what_waits_at_a_terminal_fits_its_lines_and_says_what_goes_on_without_it() {
    let home = Home::new().with("TERM", "xterm");
    let vault = home.path("a-directory-with-quite-a-name");
    let at = vault.display();
    home.type_in(&format!("mount {at} --bandwidth-up 256KiB/s")).exits(0);
    fs::write(vault.join("large"), noise(1, 3_000_000)).unwrap();
    for command in ["sync", "umount"] {
        let interrupt: [(&str, &dyn Fn() -> &'static str); 1] = [(" left", &|| "\u{3}")];
        let (code, said) = looking_at(&home, &format!("{command} {at}"), &interrupt);
        assert_eq!(code, 14, "{said}");
        assert!(said.contains("the daemon goes on"), "{said}");
        let pieces = said
            .split(['\r', '\n', '\u{1b}'])
            // The terminal echoes the key.
            .map(|piece| piece.trim_start_matches("[2K").trim_end_matches("^C"));
        for bar in pieces.filter(|piece| piece.contains(" left") && !piece.contains("s3vault:")) {
            assert!(bar.chars().count() <= usize::from(COLUMNS), "{bar:?}");
        }
    }
    // It goes on, and a second umount waits for it.
    home.type_in(&format!("umount {at}")).exits(0).says("everything is in the bucket");
}
