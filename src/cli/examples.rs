//! The examples that `--help` and the manual pages show below the options: lines that work as they are. A test parses
//! each of them.

pub(super) const INIT: &str = "Examples:
  s3vault init
  s3vault init --bucket s3://my-bucket/vault
  s3vault init --bucket s3://my-bucket --endpoint-url https://s3.example.org
  s3vault init --bucket file:///mnt/disk/vault --forget";

pub(super) const MOUNT: &str = "Examples:
  s3vault mount ~/vault
  s3vault mount ~/vault --bucket s3://my-bucket --passphrase-file ~/vault.key
  s3vault mount ~/vault -o fsname=backup,ro
  s3vault mount ~/then --at '3h ago'";

pub(super) const UMOUNT: &str = "Examples:
  s3vault umount ~/vault
  s3vault umount ~/vault --timeout 5m";

pub(super) const SERVE: &str = "Examples:
  s3vault serve --open
  s3vault serve --listen 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem
  s3vault serve --stop";

pub(super) const TOKEN: &str = "Examples:
  s3vault serve token add laptop --write
  s3vault serve token list";

pub(super) const TOKEN_ADD: &str = "Examples:
  s3vault serve token add laptop --write
  s3vault serve token add guest --read-only --only photos/2026 --expires 30d";

pub(super) const TOKEN_LIST: &str = "Example:
  s3vault serve token list";

pub(super) const TOKEN_REMOVE: &str = "Example:
  s3vault serve token remove laptop";

pub(super) const SYNC: &str = "Examples:
  s3vault sync
  s3vault sync ~/vault/report.odt";

pub(super) const STATUS: &str = "Examples:
  s3vault status
  s3vault status ~/vault --json
  s3vault status ~/vault/photos
  s3vault status --watch";

pub(super) const TUNE: &str = "Examples:
  s3vault tune
  s3vault tune ~/vault --bandwidth-up '08:00-18:00=2MiB/s,20MiB/s'
  s3vault tune ~/vault --bandwidth-up unlimited --max-requests 32";

pub(super) const HISTORY: &str = "Example:
  s3vault history ~/vault/report.odt";

pub(super) const RESTORE: &str = "Examples:
  s3vault restore ~/vault/report.odt
  s3vault restore ~/vault/project --at '2d ago' --to ~/vault/project-before";

pub(super) const RECOVER: &str = "Examples:
  s3vault recover ~/vault --list
  s3vault recover ~/vault
  s3vault recover ~/vault/archive --remove";

pub(super) const CHECK: &str = "Examples:
  s3vault check
  s3vault check --bucket s3://my-bucket/vault --read-data";

pub(super) const GC: &str = "Examples:
  s3vault gc --dry-run
  s3vault gc ~/vault";

pub(super) const RETENTION: &str = "Examples:
  s3vault retention
  s3vault retention 30d ~/vault";

pub(super) const SNAPSHOT: &str = "Examples:
  s3vault snapshot create before-upgrade --keep 30d
  s3vault snapshot list";

pub(super) const SNAPSHOT_CREATE: &str = "Example:
  s3vault snapshot create before-upgrade ~/vault --keep 30d";

pub(super) const SNAPSHOT_LIST: &str = "Example:
  s3vault snapshot list ~/vault";

pub(super) const SNAPSHOT_DELETE: &str = "Example:
  s3vault snapshot delete before-upgrade";

pub(super) const KEY: &str = "Examples:
  s3vault key list
  s3vault key add --label backup --new-key-file /root/vault.key";

pub(super) const KEY_LIST: &str = "Example:
  s3vault key list ~/vault";

pub(super) const KEY_ADD: &str = "Example:
  s3vault key add ~/vault --label backup --new-key-file /root/vault.key";

pub(super) const KEY_PASSPHRASE: &str = "Example:
  s3vault key passphrase ~/vault";

pub(super) const KEY_RECOVERY: &str = "Example:
  s3vault key recovery ~/vault --recovery-file /root/recovery";

pub(super) const KEY_BACKUP: &str = "Example:
  s3vault key backup /media/usb/vault.superblock";

pub(super) const KEY_ROTATE: &str = "Examples:
  s3vault key rotate ~/vault --recovery-file /root/recovery
  s3vault key rotate ~/vault --rewrite";

pub(super) const KEY_REMOVE: &str = "Example:
  s3vault key remove 3f8a2c1e";

pub(super) const LS: &str = "Examples:
  s3vault ls -l photos
  s3vault ls -R home:photos '2026/*.jpg'";

pub(super) const CAT: &str = "Example:
  s3vault cat db/today.sql | psql shop";

pub(super) const TREE: &str = "Example:
  s3vault tree photos";

pub(super) const DU: &str = "Example:
  s3vault du -s photos";

pub(super) const FIND: &str = "Examples:
  s3vault find photos --name '*.jpg' --newer-than '2 days ago'
  s3vault find inbox --type f --print0 | xargs -0 s3vault rm";

pub(super) const GET: &str = "Examples:
  s3vault get photos/2026 /srv/restore
  s3vault get db/today.sql - | psql shop";

pub(super) const PUT: &str = "Examples:
  s3vault put ~/photos backup/
  pg_dump shop | s3vault put - db/today.sql";

pub(super) const CP: &str = "Example:
  s3vault cp -r photos/2026 photos/kept";

pub(super) const MV: &str = "Example:
  s3vault mv inbox/scan.pdf papers/2026/";

pub(super) const MKDIR: &str = "Example:
  s3vault mkdir -p papers/2026/taxes";

pub(super) const RM: &str = "Example:
  s3vault rm -r photos/2019 'inbox/*.tmp'";

pub(super) const CREDENTIALS: &str = "Example:
  AWS_PROFILE=backup s3vault credentials ~/vault";

pub(super) const DOCTOR: &str = "Examples:
  s3vault doctor
  s3vault doctor --bucket s3://my-bucket --endpoint-url https://s3.example.org";

pub(super) const CONFIG: &str = "Examples:
  s3vault config show
  s3vault config show --bucket backup";

pub(super) const COMPLETIONS: &str = "Examples:
  s3vault completions bash > ~/.local/share/bash-completion/completions/s3vault
  s3vault completions zsh > ~/.zfunc/_s3vault
  s3vault completions fish > ~/.config/fish/completions/s3vault.fish";

pub(super) const MAN: &str = "Examples:
  s3vault man mount | man -l -
  s3vault man > /usr/local/share/man/man1/s3vault.1";

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory, Parser};

    use crate::cli::args::Arguments;

    /// The words of a command line up to a pipe or redirection, without leading variables. Quotes hold a word together.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut quoted) = (vec![String::new()], false);
        for c in line.trim().chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                '|' | '>' | '#' if !quoted => break,
                c => words[..].last_mut().unwrap().push(c),
            }
        }
        words.into_iter().filter(|word| !word.is_empty()).skip_while(|w| w.contains('=')).collect()
    }

    fn look(command: &Command) -> usize {
        let mut seen = 0;
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example"), "{} has no example", sub.get_name());
            for line in help.lines().skip(1) {
                assert!(line.len() <= 80, "{line}");
                if !words(line)[0].ends_with("s3vault") {
                    continue; // what becomes of the output
                }
                let said = Arguments::try_parse_from(words(line));
                assert!(said.is_ok(), "{line}: {}", said.unwrap_err());
                seen += 1;
            }
            seen += look(sub);
        }
        seen
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        assert!(look(&Arguments::command()) > 30);
    }

    #[test]
    fn every_option_of_all_commands_stands_in_their_group() {
        let mut command = Arguments::command();
        command.build();
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            for option in sub.get_arguments().filter(|option| option.is_global_set()) {
                let heading = option.get_help_heading().unwrap_or_default();
                assert!(heading == "Global options" || option.get_id() == "bucket", "{option:?}");
            }
        }
    }
}
