//! `LOCK` and `UNLOCK`.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::answers::xml_response;
use super::conditions::failed;
use super::error::{DavError, DavResult};
use super::locks::{DavLock, LASTS, LASTS_MAX, LockRefusal, LockWish};
use super::props::active;
use super::service::{DavRequest, DavService, Depth, document};
use super::xml::XmlElement;
use crate::gateway::HttpProblem;
use crate::gateway::incoming::{Incoming, OnConflict};

/// The most bytes that a client may store about itself in a lock (`DAV:owner`).
const OWNER_MAX: usize = 4 << 10;

impl DavService {
    pub(super) async fn lock(&self, request: &DavRequest, body: Body) -> DavResult {
        let lasts = lasts(&request.headers);
        let Some(asked) = document(body).await? else {
            return self.refresh(request, lasts).await;
        };
        let is_deep = match request.depth()? {
            Depth::Zero => false,
            Depth::Infinity => true,
            Depth::One => return Err(DavError::bad_request("A lock's Depth is 0 or infinity.")),
        };
        if self.gateway.vfs.options().read_only {
            let text = "Nothing can be changed here, so there is nothing to lock.";
            return Err(HttpProblem::new(StatusCode::FORBIDDEN, "read_only", text).into());
        }
        let found = self.found(&request.path).await?;
        if found.is_none() {
            self.has_parent(&request.path).await?;
            self.unlocked_name(request, &request.path)?;
        }
        self.conditions_hold(request, found.as_ref()).await?;
        let (is_exclusive, owner) = lock_info(&asked)?;
        let lock = self.locks.lock(LockWish {
            root: request.path.names().to_vec(),
            is_exclusive,
            is_deep,
            owner,
            holder: request.holder(),
            lasts,
        })?;
        let mut status = StatusCode::OK;
        if found.is_none() {
            // Where nothing exists, LOCK makes an empty file, so that nobody else creates one there.
            match self.make_empty(request).await {
                Ok(()) => status = StatusCode::CREATED,
                Err(problem) => {
                    let _ = self.locks.unlock(&lock.root, &lock.token, lock.holder);
                    return Err(problem.into());
                }
            }
        }
        let mut response = told(status, &lock);
        if let Ok(token) = HeaderValue::try_from(format!("<{}>", lock.token)) {
            response.headers_mut().insert("lock-token", token);
        }
        Ok(response)
    }

    async fn refresh(&self, request: &DavRequest, lasts: Duration) -> DavResult {
        if request.tokens.is_empty() {
            return Err(DavError::bad_request(
                "A LOCK without a body is for a lock that is there: name it in the header If.",
            ));
        }
        self.gateway.resource(&request.path).await?;
        let (names, holder) = (request.path.names(), request.holder());
        self.conditions_hold(request, None).await?;
        let lock = self.locks.refresh(names, &request.tokens, holder, lasts);
        let lock = lock.map_err(|refusal| match refusal {
            LockRefusal::Unknown => failed().into(),
            other => DavError::from(other),
        })?;
        Ok(told(StatusCode::OK, &lock))
    }

    async fn make_empty(&self, request: &DavRequest) -> Result<(), HttpProblem> {
        let key = request.path.key();
        let nothing = stream::empty::<Result<Bytes, std::io::Error>>();
        let file = Incoming::receive(&self.gateway, key.name(), None, nothing).await?;
        match file.keep(key.clone(), OnConflict::Fail).await {
            // Somebody else was faster: the file that they made is locked now.
            Err(problem) if problem.status() == StatusCode::CONFLICT => Ok(()),
            kept => kept.map(drop),
        }
    }

    pub(super) fn unlock(&self, request: &DavRequest) -> DavResult {
        let token = request.headers.get("lock-token").and_then(|token| token.to_str().ok());
        let token = token.and_then(|token| token.trim().strip_prefix('<')?.strip_suffix('>'));
        let Some(token) = token else {
            return Err(DavError::bad_request("The header Lock-Token says which lock: <TOKEN>."));
        };
        // Also of what is not there any more: the mount or the page may have removed it.
        self.locks.unlock(request.path.names(), token, request.holder())?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }
}

fn told(status: StatusCode, lock: &DavLock) -> Response {
    let active = active(lock);
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:prop xmlns:D=\"DAV:\"><D:lockdiscovery>{active}\
         </D:lockdiscovery></D:prop>\n"
    );
    xml_response(status, document)
}

/// Whether the lock is to be exclusive, and what the client says about itself.
pub(super) fn lock_info(asked: &XmlElement) -> Result<(bool, String), DavError> {
    let scope = asked.is("lockinfo").then(|| asked.child("lockscope")).flatten();
    let is_write = asked.child("locktype").is_some_and(|kind| kind.child("write").is_some());
    let is_exclusive = scope.and_then(|scope| {
        let (one, many) = (scope.child("exclusive").is_some(), scope.child("shared").is_some());
        (one != many).then_some(one)
    });
    let owner = asked.child("owner").map(XmlElement::write).unwrap_or_default();
    match is_exclusive.filter(|_| is_write) {
        Some(_) if owner.len() > OWNER_MAX => {
            Err(DavError::bad_request("The owner of a lock is at most 4 KiB."))
        }
        Some(is_exclusive) => Ok((is_exclusive, owner)),
        None => Err(DavError::bad_request(
            "The body is no DAV:lockinfo for a write lock, exclusive or shared.",
        )),
    }
}

/// The lock duration that a client asks for: the first understood word of `Timeout`.
fn lasts(headers: &HeaderMap) -> Duration {
    let text = headers.get("timeout").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let word = |word: &str| match word.trim() {
        word if word.eq_ignore_ascii_case("infinite") => Some(LASTS_MAX),
        word => {
            let seconds = word.get(..7).filter(|name| name.eq_ignore_ascii_case("second-"));
            let seconds = seconds.and_then(|_| word[7..].parse::<u64>().ok())?;
            Some(Duration::from_secs(seconds.max(1)))
        }
    };
    text.split(',').find_map(word).unwrap_or(LASTS).min(LASTS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_lasts_as_long_as_is_asked_within_bounds() {
        let lasts = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("timeout", text.parse().unwrap());
            lasts(&headers).as_secs()
        };
        assert_eq!(lasts("Second-60"), 60);
        assert_eq!(lasts("Infinite, Second-4100000000"), 3600);
        assert_eq!(lasts("Extended, second-7"), 7);
        assert_eq!(lasts("Second-99999999999999999999, Second-0"), 1);
        for text in ["", "Second-", "Second", "Second--1", "what", "Secondä7"] {
            let mut headers = HeaderMap::new();
            headers.insert("timeout", HeaderValue::from_bytes(text.as_bytes()).unwrap());
            assert_eq!(super::lasts(&headers), LASTS, "{text}");
        }
    }
}
