//! The command line of `key`.

#![allow(clippy::doc_markdown)] // these comments are what --help shows

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::examples;
use super::old_states_args::OfBucket;
use crate::vault::LABEL_MAX;

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    pub command: KeyCommand,
    #[command(flatten)]
    pub bucket: OfBucket,
}

/// A new passphrase, where it is not asked for.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct NewPassphraseArg {
    /// File that holds the new passphrase [default: asked for twice]
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
}

fn label(text: &str) -> Result<String, String> {
    let fits = text.len() <= LABEL_MAX && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
        .ok_or_else(|| format!("a label has at most {LABEL_MAX} bytes, and is one line"))
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Show what opens the vault: a passphrase, a key file, a recovery key each have a slot
    #[command(after_help = examples::KEY_LIST)]
    List {
        /// A mount [default: the one that there is, else the vault of --bucket]
        mountpoint: Option<PathBuf>,
        /// Print one JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Add a passphrase or a key file that opens the vault, too
    #[command(after_help = examples::KEY_ADD)]
    Add {
        /// A mount [default: the one that there is, else the vault of --bucket]
        mountpoint: Option<PathBuf>,
        /// What to call it in the list; sealed, so that the bucket's owner does not read it
        #[arg(long, value_name = "LABEL", value_parser = label)]
        label: Option<String>,
        #[command(flatten)]
        new: NewPassphraseArg,
        /// Make a file with a random key, for --passphrase-file on a machine without anybody to ask
        #[arg(long, value_name = "FILE", conflicts_with = "new_passphrase_file")]
        new_key_file: Option<PathBuf>,
    },
    /// Change the passphrase: the new one counts in the place of the one that was given
    ///
    /// With the recovery key given instead, it is the vault's only passphrase that is changed.
    #[command(after_help = examples::KEY_PASSPHRASE)]
    Passphrase {
        /// A mount [default: the one that there is, else the vault of --bucket]
        mountpoint: Option<PathBuf>,
        #[command(flatten)]
        new: NewPassphraseArg,
    },
    /// Make a new recovery key; the one before opens nothing any more
    #[command(after_help = examples::KEY_RECOVERY)]
    Recovery {
        /// A mount [default: the one that there is, else the vault of --bucket]
        mountpoint: Option<PathBuf>,
        #[command(flatten)]
        recovery: RecoveryFileArg,
    },
    /// Begin a new key: what is written from now on opens with it alone, and who has the old one reads none of it
    ///
    /// What is there stays sealed as it is, or is sealed anew with --rewrite. Of what opens the vault the secret that is given stays, and there is a new recovery
    /// key if there was one; every other slot goes, as it takes its secret to seal the new key: add it again.
    #[command(after_help = examples::KEY_ROTATE)]
    Rotate {
        /// A mount [default: the one that there is, else the vault of --bucket]
        mountpoint: Option<PathBuf>,
        /// Seal all that is there anew, too: in the background of the mount, which goes on when it was cut off; without a mount
        /// before the command ends
        #[arg(long)]
        rewrite: bool,
        #[command(flatten)]
        recovery: RecoveryFileArg,
    },
    /// Write the superblock to a file: without it no key opens anything, and it lies in the bucket alone
    ///
    /// It opens nothing without one of the vault's secrets. Make a new one after each change of the keys.
    #[command(after_help = examples::KEY_BACKUP)]
    Backup {
        /// The file; one with an older backup of the same vault is replaced. '-' is standard output
        file: PathBuf,
        /// A mount [default: the one that there is, else the vault of --bucket]
        mountpoint: Option<PathBuf>,
    },
    /// Remove a slot: its secret opens nothing any more. Asks for one that stays
    #[command(after_help = examples::KEY_REMOVE)]
    Remove {
        /// Its id, as the list shows it
        slot: String,
        /// A mount [default: the one that there is, else the vault of --bucket]
        mountpoint: Option<PathBuf>,
    },
}

/// Where a recovery key goes.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RecoveryFileArg {
    /// Write the recovery key to this new file, for this user alone; '-' is standard output, also where that is no
    /// terminal [default: the terminal]
    #[arg(long, value_name = "FILE", env = "S3VAULT_RECOVERY_FILE")]
    pub recovery_file: Option<PathBuf>,
}
