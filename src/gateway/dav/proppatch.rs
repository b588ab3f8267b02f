//! `PROPPATCH`: sets and removes dead properties. All changes of a request take effect, or none.

use axum::body::Body;

use super::answers::multistatus;
use super::error::{DavError, DavResult};
use super::path::href;
use super::props::{DeadProperties, is_live, propstat};
use super::service::{DavRequest, DavService, document};
use super::xml::{XmlElement, XmlName, text};

/// The status of a property that was not changed because another change failed.
const FAILED_DEPENDENCY: &str = "424 Failed Dependency";

impl DavService {
    pub(super) async fn patch(&self, request: &DavRequest, body: Body) -> DavResult {
        let Some(update) = document(body).await?.filter(|update| update.is("propertyupdate"))
        else {
            return Err(DavError::bad_request("The body is no DAV:propertyupdate."));
        };
        let found = self.gateway.resource(&request.path).await?;
        self.unlocked(request, request.path.names(), false)?;
        self.conditions_hold(request, Some(&found)).await?;
        let _turn = self.patching.lock().await;
        let mut dead = DeadProperties::of(&self.gateway, found.ino()).await?;
        let mut named = Vec::new();
        for (is_set, property, lang) in changes(&update) {
            match is_set {
                true => dead.set(&property.clone().in_language(lang)),
                false => dead.remove(&property.name),
            }
            named.push(property.name.clone());
        }
        if named.is_empty() {
            return Err(DavError::bad_request("The body names no property."));
        }
        let (live, other): (Vec<_>, Vec<_>) = named.iter().partition(|name| is_live(name));
        let all =
            |names: &[&XmlName]| -> String { names.iter().map(|name| name.empty()).collect() };
        let result = match (live.is_empty(), dead.fit()) {
            (false, _) => {
                let others = match other.is_empty() {
                    true => String::new(),
                    false => propstat(&all(&other), FAILED_DEPENDENCY),
                };
                propstat(&all(&live), "403 Forbidden") + &others
            }
            (true, false) => propstat(&all(&other), "507 Insufficient Storage"),
            (true, true) => {
                dead.keep(&self.gateway, found.ino()).await?;
                propstat(&all(&other), "200 OK")
            }
        };
        let href = text(&href(request.path.names(), found.is_collection()));
        let response = format!("<D:response><D:href>{href}</D:href>{result}</D:response>\n");
        Ok(multistatus(&response))
    }
}

/// The properties that a document sets (true) or removes (false), each with the `xml:lang` in effect there.
fn changes(update: &XmlElement) -> impl Iterator<Item = (bool, &XmlElement, Option<&str>)> {
    let steps = update.children().filter(|step| step.is("set") || step.is("remove"));
    steps.flat_map(|step| {
        let is_set = step.is("set");
        properties(step, update.lang()).map(move |(property, lang)| (is_set, property, lang))
    })
}

/// Applies the changes without a vault, for fuzzing; returns whether there are any.
#[cfg(feature = "testing")]
pub(super) fn is_taken(update: &XmlElement) -> bool {
    let mut dead = DeadProperties::default();
    let mut named = update.is("propertyupdate");
    for (is_set, property, lang) in changes(update) {
        named |= !property.name.empty().is_empty();
        match is_set {
            true => dead.set(&property.clone().in_language(lang)),
            false => dead.remove(&property.name),
        }
    }
    named && dead.fit()
}

/// The properties in `DAV:set` or `DAV:remove`, each with the `xml:lang` in effect there.
fn properties<'a>(
    step: &'a XmlElement,
    lang: Option<&'a str>,
) -> impl Iterator<Item = (&'a XmlElement, Option<&'a str>)> {
    let lang = step.lang().or(lang);
    step.children().filter(|list| list.is("prop")).flat_map(move |list| {
        let lang = list.lang().or(lang);
        list.children().map(move |property| (property, lang))
    })
}
