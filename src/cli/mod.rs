//! The command line: arguments, configuration, messages, progress, and the background
//! process. Knows `vault`, `fuse`, `gateway` and `files`, and nothing below them.

/// Prints a line in a single write, so that it is never seen in part. Unlike `println!` it does not panic if the reader
/// is gone (`| head`). For text that accompanies an action; reports use `output::show`.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let text = format!("{}\n", format_args!($($text)*));
        let _ = std::io::stdout().write_all($crate::types::printable(&text).as_bytes());
    }};
}

/// The same, on standard error.
macro_rules! complain {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let text = format!("{}\n", format_args!($($text)*));
        let _ = std::io::stderr().write_all($crate::types::printable(&text).as_bytes());
    }};
}

mod args;
mod commands;
mod config;
mod config_text;
mod control;
mod daemon;
mod daemon_report;
mod doctor;
mod end_signal;
mod examples;
mod exit;
mod files;
mod files_args;
#[cfg(feature = "testing")]
mod fuzzing;
mod help_text;
mod init_dialogue;
mod keys;
mod keys_args;
mod last;
mod limits;
mod looking_back;
mod messages;
mod mount_dir;
mod mount_helper;
mod mount_look;
mod nearest;
mod new_secret;
mod old_states;
mod old_states_args;
mod opening_args;
mod output;
mod passphrase_command;
mod passphrase_strength;
mod past_args;
mod past_dir;
mod paths;
mod prices;
mod progress;
mod recovery_output;
mod registry;
mod secrets;
mod seeing_args;
mod target;
mod unlock;

#[cfg(feature = "testing")]
pub use fuzzing::fuzzed;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::os;

use args::{Arguments, Command};
use daemon::launch::LaunchedDaemon;
use exit::{CliResult, Exit, Failure};
use mount_helper::CalledAs;
use paths::UserPaths;

/// Runs the command line.
pub fn main() -> ExitCode {
    os::keep_secrets();
    os::survive_file_limit();
    let called = CalledAs::by(std::env::args_os().next().as_deref());
    let exit = match called.translate(std::env::args_os()) {
        Ok(Some(words)) => run_words(&words),
        Ok(None) => Exit::Done, // fine, but there is nothing to do
        Err(failure) => {
            complain!("s3vault: {failure}.");
            failure.exit
        }
    };
    ExitCode::from(called.code(exit))
}

fn run_words(words: &[OsString]) -> Exit {
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are not errors; clap knows which is which.
            help_text::print(&error);
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    if let Command::Daemon(_) = arguments.command {
        return daemon::run::main();
    }
    match run(&arguments, words) {
        Ok(()) => Exit::Done,
        Err(failure) => {
            complain!("s3vault: {failure}.");
            if arguments.global.verbose > 0 {
                failure.causes.iter().for_each(|cause| complain!("  because: {cause}"));
            }
            failure.exit
        }
    }
}

fn run(arguments: &Arguments, words: &[OsString]) -> CliResult {
    let global = &arguments.global;
    // Commands that print the command line itself need no home directory.
    match &arguments.command {
        Command::Completions(args) => return commands::completions(args),
        Command::Man(args) => return commands::man(args),
        _ => {}
    }
    let paths = &UserPaths::find(global)?;
    match &arguments.command {
        Command::Umount(args) => commands::umount(paths, args),
        Command::Sync(args) => commands::sync(paths, args),
        Command::Status(args) => wait_for(commands::status(paths, args)),
        Command::History(args) => commands::history(paths, args),
        Command::Restore(args) => commands::restore(paths, args),
        Command::Recover(args) => commands::recover(paths, args),
        Command::Init(args) => wait_for(commands::init(global, paths, args)),
        Command::Mount(args) => wait_for(commands::mount(global, paths, args)),
        Command::Serve(args) => wait_for(commands::serve(global, paths, args)),
        Command::Check(args) => wait_for(commands::check(global, paths, args)),
        Command::Gc(args) => wait_for(commands::gc(global, paths, args)),
        Command::Retention(args) => wait_for(commands::retention(global, paths, args)),
        Command::Snapshot(args) => wait_for(commands::snapshot(global, paths, args)),
        Command::Key(args) => wait_for(commands::key(global, paths, args)),
        Command::Tune(args) => commands::tune(global, paths, args),
        Command::Credentials(args) => wait_for(commands::credentials(global, paths, args)),
        Command::Doctor(args) => wait_for(commands::doctor(global, paths, args)),
        Command::Config(args) => commands::config(global, paths, &args.command, words),
        Command::Ls(args) => wait_for(commands::ls(global, paths, args)),
        Command::Cat(args) => wait_for(commands::cat(global, paths, args)),
        Command::Tree(args) => wait_for(commands::tree(global, paths, args)),
        Command::Du(args) => wait_for(commands::du(global, paths, args)),
        Command::Find(args) => wait_for(commands::find(global, paths, args)),
        Command::Get(args) => wait_for(commands::get(global, paths, args)),
        Command::Put(args) => wait_for(commands::put(global, paths, args)),
        Command::Cp(args) => wait_for(commands::cp(global, paths, args)),
        Command::Mv(args) => wait_for(commands::mv(global, paths, args)),
        Command::Mkdir(args) => wait_for(commands::mkdir(global, paths, args)),
        Command::Rm(args) => wait_for(commands::rm(global, paths, args)),
        Command::Attend(args) => wait_for(LaunchedDaemon::attend(args)),
        Command::Completions(_) | Command::Man(_) | Command::Daemon(_) => Ok(()), // handled above
    }
}

/// Runs a command that uses the network. It makes few requests, one after the other, so one thread is enough.
fn wait_for(work: impl Future<Output = CliResult>) -> CliResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("no runtime could be started", &error))?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}
