//! WebDAV properties: "live" ones, which the vault computes, and "dead" ones, which clients store with a file or
//! directory. Dead properties are an extended attribute, so they move with the file.

use minicbor::{Decode, Encode};

use super::locks::{DavLock, LockTable};
use super::path::{DavPath, href};
use super::xml::{DAV, XmlElement, XmlName, parse_written, text};
use crate::gateway::conditions::Validators;
use crate::gateway::errors::Result;
use crate::gateway::metadata::{UploadNote, content_type, rfc3339};
use crate::gateway::{Gateway, HttpProblem};
use crate::types::{Hash, InodeNo};
use crate::vfs::{Error, Inspected, Setter};

/// The extended attribute that holds the dead properties.
pub(in crate::gateway) const DEAD: &[u8] = b"user.s3vault.dav";
/// The most bytes of dead properties of one file.
const DEAD_MAX: usize = 60 << 10;

/// The properties in the answer to `DAV:allprop`.
const LIVE: [&str; 9] = [
    "creationdate",
    "displayname",
    "getcontentlength",
    "getcontenttype",
    "getetag",
    "getlastmodified",
    "lockdiscovery",
    "resourcetype",
    "supportedlock",
];
/// Properties that are sent only when asked for by name (RFC 4331).
const LIVE_BY_NAME: [&str; 2] = ["quota-available-bytes", "quota-used-bytes"];

/// One dead property.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct DeadProperty {
    #[n(0)]
    namespace: String,
    #[n(1)]
    local: String,
    /// The whole element, with all namespace declarations that it needs.
    #[n(2)]
    xml: String,
}

/// All dead properties of a file or directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct DeadProperties {
    #[n(0)]
    all: Vec<DeadProperty>,
}

/// A file or directory that was looked up.
pub(super) struct Resource {
    pub(super) names: Vec<Vec<u8>>,
    pub(super) inspected: Inspected,
}

/// Which properties a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wanted {
    /// All, and these in addition.
    All(Vec<XmlName>),
    /// The names of all, without values.
    Names,
    These(Vec<XmlName>),
}

/// Whether the vault computes this property, so that no client may set it.
pub(super) fn is_live(name: &XmlName) -> bool {
    let local = name.local.as_str();
    name.namespace == DAV && (LIVE.contains(&local) || LIVE_BY_NAME.contains(&local))
}

impl DeadProperty {
    /// Whether it is a property that a client could have set. Rewrites the XML, so that what is sent is always one
    /// complete element, whoever wrote the attribute.
    fn is_one(&mut self) -> bool {
        let name = XmlName::new(&self.namespace, &self.local);
        let element =
            parse_written(self.xml.as_bytes()).ok().filter(|element| element.name == name);
        match element {
            Some(element) if !is_live(&name) => self.xml = element.write(),
            _ => return false,
        }
        true
    }
}

impl DeadProperties {
    pub(super) async fn of(gateway: &Gateway, ino: InodeNo) -> Result<Self> {
        match gateway.vfs.xattr(ino, DEAD).await {
            // Whoever may write the file may write the attribute, so invalid content counts as no properties.
            Ok(value) => {
                let mut found: Self = minicbor::decode(&value).unwrap_or_default();
                found.all.retain_mut(DeadProperty::is_one);
                Ok(found)
            }
            Err(Error::NoAttribute) => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn set(&mut self, element: &XmlElement) {
        self.remove(&element.name);
        let XmlName { namespace, local, .. } = element.name.clone();
        self.all.push(DeadProperty { namespace, local, xml: element.write() });
    }

    pub(super) fn remove(&mut self, name: &XmlName) {
        self.all.retain(|own| (&own.namespace, &own.local) != (&name.namespace, &name.local));
    }

    fn get(&self, name: &XmlName) -> Option<&str> {
        let own = |own: &&DeadProperty| own.namespace == name.namespace && own.local == name.local;
        self.all.iter().find(own).map(|own| own.xml.as_str())
    }

    /// Whether they are small enough to be stored.
    pub(super) fn fit(&self) -> bool {
        self.encode().len() <= DEAD_MAX
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Encoding into a vector cannot fail.
        _ = minicbor::encode(self, &mut bytes);
        bytes
    }

    pub(super) async fn keep(&self, gateway: &Gateway, ino: InodeNo) -> Result<()> {
        let kept = match self.all.is_empty() {
            true => gateway.vfs.remove_xattr(ino, DEAD).await,
            false => {
                let by = Setter::Superuser;
                gateway.vfs.set_xattr(ino, DEAD, &self.encode(), 0, &by).await
            }
        };
        match kept {
            Err(Error::NoAttribute) => Ok(()),
            kept => kept.map_err(HttpProblem::from),
        }
    }
}

impl Resource {
    pub(super) fn is_collection(&self) -> bool {
        self.inspected.attributes.mode & libc::S_IFMT == libc::S_IFDIR
    }

    pub(super) fn ino(&self) -> InodeNo {
        self.inspected.attributes.ino
    }

    /// The file's version; `None` while it is being written.
    pub(super) fn version(&self) -> Option<Hash> {
        self.inspected.version
    }

    /// Whether it has writes that are not part of a version yet.
    pub(super) fn is_being_written(&self) -> bool {
        !self.is_collection() && self.inspected.version.is_none()
    }

    pub(super) fn validators(&self) -> Validators {
        Validators::new(self.inspected.version, self.inspected.attributes.mtime)
    }

    fn name(&self) -> &[u8] {
        self.names.last().map_or(&[], Vec::as_slice)
    }

    /// The `DAV:response` element: the properties that were asked for, and the names of those that do not exist.
    pub(super) async fn response(
        &self,
        gateway: &Gateway,
        locks: &LockTable,
        wanted: &Wanted,
    ) -> Result<String> {
        let needs_dead = match wanted {
            Wanted::These(names) => names.iter().any(|name| !is_live(name)),
            Wanted::All(_) | Wanted::Names => true,
        };
        let dead = match needs_dead {
            true => DeadProperties::of(gateway, self.ino()).await?,
            false => DeadProperties::default(),
        };
        let (mut found, mut missing) = (String::new(), String::new());
        let all = LIVE.iter().map(|local| XmlName::dav(local));
        let dead_names = || dead.all.iter().map(|own| XmlName::new(&own.namespace, &own.local));
        let names: Vec<XmlName> = match wanted {
            Wanted::These(names) => names.clone(),
            Wanted::All(more) => all.chain(dead_names()).chain(more.iter().cloned()).collect(),
            Wanted::Names => {
                let there = all.chain(dead_names());
                found.extend(there.map(|name| name.empty()));
                Vec::new()
            }
        };
        for name in names {
            let value = match is_live(&name) {
                true => self.live(gateway, locks, &name.local).await?,
                false => dead.get(&name).map(str::to_owned),
            };
            match value {
                Some(value) => found.push_str(&value),
                // Only properties that were asked for by name can be missing.
                None if matches!(wanted, Wanted::These(_)) => missing.push_str(&name.empty()),
                None => {}
            }
        }
        let mut answer = format!(
            "<D:response><D:href>{}</D:href>",
            text(&href(&self.names, self.is_collection()))
        );
        if !found.is_empty() || missing.is_empty() {
            answer.push_str(&propstat(&found, "200 OK"));
        }
        if !missing.is_empty() {
            answer.push_str(&propstat(&missing, "404 Not Found"));
        }
        Ok(answer + "</D:response>")
    }

    /// A live property as XML; `None` if the resource does not have it.
    async fn live(
        &self,
        gateway: &Gateway,
        locks: &LockTable,
        local: &str,
    ) -> Result<Option<String>> {
        let attributes = &self.inspected.attributes;
        let is_file = !self.is_collection();
        let value = match local {
            "creationdate" => Some(rfc3339(attributes.created)),
            // XML cannot express every name.
            "displayname" => std::str::from_utf8(self.name()).ok().map(text),
            "getcontentlength" => is_file.then(|| attributes.size.to_string()),
            "getcontenttype" => is_file.then(|| {
                let known = UploadNote::of(&self.inspected).map(|known| known.content_type);
                text(&content_type(known.as_deref(), self.name()))
            }),
            "getetag" => self.validators().etag.map(|tag| text(&tag)),
            "getlastmodified" => self.validators().last_modified(),
            "lockdiscovery" => Some(locks.covering(&self.names).iter().map(active).collect()),
            "resourcetype" if is_file => Some(String::new()),
            "resourcetype" => Some("<D:collection/>".to_owned()),
            "supportedlock" => Some(SUPPORTED.to_owned()),
            "quota-available-bytes" | "quota-used-bytes" if !is_file => {
                let space = gateway.vfs.space().await?;
                let used = space.blocks.saturating_sub(space.free);
                let blocks = if local == "quota-used-bytes" { used } else { space.free };
                Some(blocks.saturating_mul(space.block).to_string())
            }
            _ => None,
        };
        Ok(value.map(|value| match value.is_empty() {
            true => format!("<D:{local}/>"),
            false => format!("<D:{local}>{value}</D:{local}>"),
        }))
    }
}

/// The lock kinds that every file and directory supports.
const SUPPORTED: &str = "<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype>\
    </D:lockentry><D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>";

/// Properties with their common status.
pub(super) fn propstat(properties: &str, status: &str) -> String {
    format!(
        "<D:propstat><D:prop>{properties}</D:prop><D:status>HTTP/1.1 {status}</D:status></D:propstat>"
    )
}

/// `DAV:activelock`.
pub(super) fn active(lock: &DavLock) -> String {
    let scope = if lock.is_exclusive { "exclusive" } else { "shared" };
    let depth = if lock.is_deep { "infinity" } else { "0" };
    format!(
        "<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope>\
         <D:depth>{depth}</D:depth>{}<D:timeout>Second-{}</D:timeout>\
         <D:locktoken><D:href>{}</D:href></D:locktoken><D:lockroot><D:href>{}</D:href></D:lockroot></D:activelock>",
        lock.owner,
        lock.left().as_secs().max(1),
        lock.token,
        text(&href(&lock.root, false)),
    )
}

impl Gateway {
    /// Looks up a path: a file or a directory. Anything else does not exist for WebDAV clients.
    pub(super) async fn resource(&self, path: &DavPath) -> Result<Resource> {
        let names = path.names().to_vec();
        let inspected = match path.is_root() {
            true => {
                let attributes = self.vfs.attributes(InodeNo::ROOT).await?;
                Inspected { attributes, version: None, is_durable: true, note: None }
            }
            false => self.inspect(path.key()).await?.0,
        };
        match inspected.attributes.mode & libc::S_IFMT {
            libc::S_IFREG | libc::S_IFDIR => Ok(Resource { names, inspected }),
            _ => Err(HttpProblem::conflict(
                "not_a_file",
                "This is a symlink, a device, a fifo or a socket, which WebDAV knows nothing of. Nothing was changed.",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute can hold anything that setfattr(1) wrote.
    #[test]
    fn what_no_client_could_set_is_no_property() {
        let is_one = |namespace: &str, local: &str, xml: &str| {
            let [namespace, local, xml] = [namespace, local, xml].map(str::to_owned);
            let mut own = DeadProperty { namespace, local, xml };
            own.is_one().then_some(own.xml)
        };
        let own = "<a:k xmlns:a=\"u:1\" b=\"&lt;\" xml:lang=\"de\">v<b xmlns=\"u:2\"/></a:k>";
        assert_eq!(is_one("u:1", "k", own).as_deref(), Some(own));
        // An element that a client may set, with prefixes declared by the elements around it.
        let prefixes = (0..31).map(|n| format!(" xmlns:p{n}='u:{n}'")).collect::<Vec<_>>().concat();
        let attributes = (0..31).map(|n| format!(" p{n}:a='v'")).collect::<Vec<_>>().concat();
        let around = format!("<around{prefixes}><k{attributes}/></around>");
        let around = crate::gateway::dav::xml::parse(around.as_bytes()).unwrap();
        let inner = around.children().next().unwrap().clone().in_language(Some("de"));
        assert!(is_one("", "k", &inner.write()).is_some());
        assert_eq!(
            is_one("u:1", "k", "<k xmlns='u:1'></k><!-- -->").unwrap(),
            "<k xmlns=\"u:1\"/>"
        );
        for (namespace, local, xml) in [
            ("u:1", "other", own),
            ("u:2", "k", own),
            ("", "k", "<k xmlns=\"\"/></D:prop></D:propstat>"),
            ("", "k", "plain"),
            ("", "k", ""),
            (DAV, "getetag", "<D:getetag xmlns:D=\"DAV:\">x</D:getetag>"),
            ("http://www.w3.org/2000/xmlns/", "F", "<xmlns:F/>"),
        ] {
            assert_eq!(is_one(namespace, local, xml), None, "{xml}");
        }
    }
}
