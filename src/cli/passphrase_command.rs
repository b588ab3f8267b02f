//! A passphrase from another program: a password manager, the desktop's keyring. No shell runs: the words of the command
//! are split at blanks, and go to the program as they are.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::exit::{CliResult, Exit, Failure};

/// What it prints is read up to here, as a file is.
const OUTPUT_MAX: u64 = 64 << 10;
/// How long it may take: somebody may have to unlock their password manager.
const LIMIT: Duration = Duration::from_secs(120);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// What the keyring's own program is asked for the vault at `place`.
pub(super) fn keyring(place: &str) -> Vec<String> {
    ["secret-tool", "lookup", "service", "s3vault", "vault", place].map(str::to_owned).to_vec()
}

/// The words of a command line: split at blanks. Quotes mean nothing.
pub(super) fn words(command: &str) -> Vec<String> {
    command.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Runs it, and takes what it prints, less one final newline.
pub(super) fn output_of(words: &[String]) -> CliResult<Zeroizing<Vec<u8>>> {
    within(words, LIMIT)
}

fn within(words: &[String], limit: Duration) -> CliResult<Zeroizing<Vec<u8>>> {
    let [program, arguments @ ..] = words else {
        return Err(Failure::new(Exit::Usage, "--passphrase-command names no program"));
    };
    let failed = |what: String| {
        let text = format!(
            "no passphrase came from `{program}`: {what}; nothing was changed; run it by hand to see why (it is started \
             without a shell, its words split at blanks; put what needs more into a script)"
        );
        Failure::new(Exit::NoPassphrase, text)
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let Some(out) = child.stdout.take() else { return Err(failed("it has no output".to_owned())) };
    let (said, hear) = mpsc::channel();
    // It may leave others behind that hold its output: so nobody waits for the thread.
    let listen = move || drop(said.send(read_all(out)));
    let listener = std::thread::Builder::new().spawn(listen);
    listener.map_err(|error| failed(error.to_string()))?;
    let begun = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < limit => std::thread::sleep(LOOK),
            Ok(None) => {
                // It may just have ended: either way it is over.
                drop(child.kill().and_then(|()| child.wait()));
                return Err(failed(format!("it did not end within {} s", limit.as_secs())));
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    };
    let left = limit.saturating_sub(begun.elapsed()).max(LOOK);
    let bytes =
        hear.recv_timeout(left).map_err(|_| failed("its output does not end".to_owned()))?;
    let bytes = bytes.map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > OUTPUT_MAX {
        return Err(failed("it printed over 64 KiB".to_owned()));
    }
    if !status.success() {
        return Err(failed(format!("it ended with {status}")));
    }
    let mut bytes = bytes;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(failed("it printed nothing".to_owned()));
    }
    Ok(bytes)
}

fn read_all(out: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // As large as it may become, so that no copy stays behind in a smaller one.
    let room = usize::try_from(OUTPUT_MAX).unwrap_or(usize::MAX).saturating_add(64);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    out.take(OUTPUT_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_of(command: &str, limit: Duration) -> (Exit, String) {
        let failure = within(&words(command), limit).map(|_| panic!("{command}")).unwrap_err();
        (failure.exit, failure.message)
    }

    #[test]
    fn what_a_program_prints_is_the_passphrase_and_no_shell_reads_it() {
        let got = |command: &str| within(&words(command), LIMIT).unwrap().to_vec();
        assert_eq!(got("echo  $HOME;  'a b'"), b"$HOME; 'a b'");
        assert_eq!(got("printf word\\n\\n"), b"word\n");
    }

    #[test]
    fn a_program_that_fails_hangs_or_says_nothing_or_too_much_is_refused_in_time() {
        let begun = Instant::now();
        for (command, why) in [
            ("", "names no program"),
            ("/nowhere/at/all", "No such file"),
            ("false", "exit status: 1"),
            ("true", "printed nothing"),
            ("head -c 70000 /dev/zero", "over 64 KiB"),
        ] {
            let (exit, message) = exit_of(command, LIMIT);
            assert!(matches!(exit, Exit::NoPassphrase | Exit::Usage), "{command}");
            assert!(message.contains(why), "{command}: {message}");
        }
        let (_, message) = exit_of("sleep 100", Duration::from_millis(200));
        assert!(message.contains("did not end"), "{message}");
        assert!(begun.elapsed() < Duration::from_secs(50));
    }
}
