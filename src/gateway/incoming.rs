//! A file being uploaded: written without a name, and named once it is complete.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::conditions::Validators;
use super::errors::Result;
use super::metadata::{ATTRIBUTE, FileInfo, UploadNote, content_type, hex};
use super::s3_key::{S3Key, numbered};
use super::{Gateway, HttpProblem};
use crate::crypto::{Sha256Stream, random};
use crate::files::HandleGuard;
use crate::types::{Hash, InodeNo, Timestamp};
use crate::vfs::{Error, NameOf, RenameMode, Setter, WriteAt};

/// New files are readable by everybody who can see the mount (0666 less the umask).
const FILE_MODE: u32 = 0o666;
/// How many numbered names are tried for a taken name, before a random one.
const NUMBERS: u32 = 100;

/// A file that was received completely and has no name yet.
pub(super) struct Incoming {
    gateway: Arc<Gateway>,
    open: HandleGuard,
    sha256: Hash,
    content_type: String,
}

/// What to do when the name is taken: fail, replace, replace only if it still has this version, or use another name
/// with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnConflict {
    Fail,
    Replace,
    Only(InodeNo, Hash),
    Number,
}

/// The outcome of an upload.
pub(super) struct Kept {
    pub(super) key: S3Key,
    pub(super) info: FileInfo,
    /// Whether the name existed before.
    pub(super) has_replaced: bool,
    pub(super) ino: InodeNo,
    /// The entity tag of the uploaded version, if the file still has it.
    pub(super) etag: Option<String>,
}

impl Incoming {
    /// Receives a body as it comes, in constant memory. If this is dropped before the file has a name (for example
    /// because the client went away, and this future with it), nothing of the file is left.
    pub(super) async fn receive<E>(
        gateway: &Arc<Gateway>,
        name: &[u8],
        said: Option<&str>,
        mut body: impl Stream<Item = std::result::Result<Bytes, E>> + Unpin,
    ) -> Result<Self>
    where
        E: std::error::Error + 'static,
    {
        let vfs = &gateway.vfs;
        let handle = vfs.create_unnamed(&gateway.owner, FILE_MODE, name).await?;
        let open = HandleGuard::new(vfs, handle);
        let (mut sha256, mut size) = (Sha256Stream::new(), 0_u64);
        while let Some(part) = body.next().await {
            let part = part.map_err(|error| HttpProblem::of_body(&error))?;
            vfs.write(handle, WriteAt::Offset(size), &part).await?;
            sha256.update(&part);
            size += part.len() as u64;
        }
        let (sha256, content_type) = (sha256.finish(), content_type(said, name));
        Ok(Self { gateway: gateway.clone(), open, sha256, content_type })
    }

    /// Copies an extended attribute from the file that this one is to replace.
    pub(super) async fn carry(&self, from: InodeNo, attribute: &[u8]) -> Result<()> {
        let vfs = self.open.vfs();
        match vfs.xattr(from, attribute).await {
            Ok(value) => {
                let ino = vfs.inode_of(self.open.handle())?;
                Ok(vfs.set_xattr(ino, attribute, &value, 0, &Setter::Superuser).await?)
            }
            Err(Error::NoAttribute | Error::Stale) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the upload note and gives the file its name; from then on the complete file is in the tree. Missing
    /// directories are made.
    pub(super) async fn keep(self, key: S3Key, on_conflict: OnConflict) -> Result<Kept> {
        let (directories, name) =
            key.split().ok_or_else(|| HttpProblem::from(Error::IsDirectory))?;
        let parent = self.gateway.make_directory(directories).await?;
        let directory = S3Key::parse_directory(&directories.join(&b'/'))?;
        let known = UploadNote {
            version: Hash::ZERO,
            id: random(),
            content_type: self.content_type.clone(),
            sha256: self.sha256,
            uploaded_at: Timestamp::now(),
        };
        let note = |version| UploadNote { version, ..known.clone() }.encode();
        let of = match on_conflict {
            OnConflict::Replace => NameOf::Of(RenameMode::Replace),
            OnConflict::Only(ino, version) => NameOf::Version(ino, version),
            OnConflict::Fail | OnConflict::Number => NameOf::Of(RenameMode::NoReplace),
        };
        let mut name = name.to_vec();
        let mut tries = 0;
        let named = loop {
            let named =
                self.open.vfs().give_name(self.open.handle(), parent, &name, of, (ATTRIBUTE, note));
            match named.await {
                Err(Error::Exists) if on_conflict == OnConflict::Number => {
                    tries += 1;
                    let suffix = match tries {
                        ..=NUMBERS => tries.to_string(),
                        _ => hex(&random::<8>()),
                    };
                    name = numbered(key.name(), &suffix);
                }
                named => break named?,
            }
        };
        let key = directory.join(&name)?;
        let inspected = self.gateway.vfs.inspect(parent, &name, ATTRIBUTE).await;
        let inspected = match inspected {
            Ok(inspected) if inspected.attributes.ino == named.attributes.ino => inspected,
            // It was renamed, replaced or removed already; the upload succeeded all the same.
            _ => crate::vfs::Inspected {
                attributes: named.attributes,
                version: None,
                is_durable: false,
                note: None,
            },
        };
        let mut info = FileInfo::new(&key, &inspected);
        // The answer describes what was uploaded, whatever happened to the file since.
        info.id = Some(hex(&known.id));
        info.sha256 = Some(known.sha256.to_string());
        info.uploaded_at = Some(super::metadata::rfc3339(known.uploaded_at));
        info.content_type = Some(known.content_type.clone());
        let (ino, has_replaced) = (named.attributes.ino, named.has_replaced);
        let etag = Validators::new(inspected.version, inspected.attributes.mtime).etag;
        Ok(Kept { key, info, has_replaced, ino, etag })
    }
}
